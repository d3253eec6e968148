"""Rules at request: every slate is the brute-force ranking of what a plain loop lets through."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from sanderling import Engine
from sanderling.bundle.manifest import Exploration
from sanderling.bundle.reader import Bundle
from sanderling.events.schema import Decision
from sanderling.events.semantics import semantic_fault
from sanderling.exploration import newcomers as quota
from sanderling.ranking import rules
from sanderling.ranking.catalog_attributes import BundleColumns, CatalogAttributes
from sanderling.ranking.scorer import Scorer
from tests.support import naive
from tests.support.bundles import write_bundle
from tests.support.engines import scorer_of, stored
from tests.support.fakes import FakeClock, FakeEntropy
from tests.support.naive_rules import naive_match
from tests.support.shops import DAYS, GENRES, ITEMS, TIMES, attributes_of, write_shop

# By attribute what it may hold; each example adds its own words.
VALUES = {
    "price": st.integers(0, 6) | st.sampled_from([0.5, 2.5, -1.0, 1e300]),
    "genre": st.sampled_from(GENRES),
    "tags": st.lists(st.sampled_from(GENRES), max_size=3),
    "sale": st.booleans(),
    "released": st.sampled_from(DAYS),
    "mixed": st.sampled_from(["jazz", 1, 0, True, False, [1, "jazz"], {"a": 1}, []]),
}
OPERANDS = {
    "tags": VALUES["genre"],
    "released": VALUES["released"] | st.sampled_from([0, 1735725600, -60.0]),
    "mixed": st.sampled_from(["jazz", 1, 0, True, False]),
}
records = st.fixed_dictionaries({}, optional=dict(VALUES))


@st.composite
def comparisons(draw):
    """One attribute with operators that fit its type."""
    name = draw(st.sampled_from(list(VALUES)))
    operand = OPERANDS.get(name, VALUES[name])
    several = st.lists(operand, max_size=3)
    operators = {
        "eq": operand,
        "in": several,
        "any": several,
        "all": st.lists(operand, min_size=1, max_size=3),
        "exists": st.booleans(),
    }
    if name in ("price", "released"):
        operators |= dict.fromkeys(("lt", "le", "gt", "ge"), operand)
    test = st.fixed_dictionaries({}, optional=operators).filter(bool)
    return {name: draw(operand | test)}


wheres = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: {"and": parts}),
        st.lists(inner, max_size=3).map(lambda parts: {"or": parts}),
        inner.map(lambda part: {"not": part}),
        st.tuples(inner, inner).map(lambda parts: {**parts[0], **parts[1]}),
    ),
    max_leaves=6,
)

# What makes every attribute exist with its type, whatever else is drawn.
ANCHORS = [
    {"price": 1, "genre": "jazz", "tags": ["folk"], "sale": True, "released": DAYS[0]},
    {"mixed": "jazz"},
    {"mixed": 1},
    {"mixed": True},
]


def catalog(of_bundle, added=()):
    """Return the attributes of records, as if a bundle and a device had them."""
    bundle = SimpleNamespace(
        values=lambda name: (record.get(name) for record in of_bundle),
        record=lambda row: of_bundle[row],
        columns=None,
        manifest=SimpleNamespace(sizes=SimpleNamespace(items=len(of_bundle))),
    )
    return CatalogAttributes(BundleColumns(bundle), len(of_bundle), added)


@settings(deadline=None, max_examples=250)
@given(st.lists(records, max_size=12), st.lists(records, max_size=5), wheres)
def test_columns_match_what_a_loop_over_records_matches(of_bundle, added, where):
    """Any rule over any catalog holds for the same items as a plain loop, the device's included."""
    of_bundle = ANCHORS + of_bundle
    bundled, of_device = catalog(of_bundle, added).matches(rules.parse(where))
    assert bundled.tolist() == [naive_match(where, record, TIMES) for record in of_bundle]
    assert of_device.tolist() == [naive_match(where, record, TIMES) for record in added]


@pytest.fixture(scope="module", params=[False, True], ids=["catalog", "columns"])
def shop(tmp_path_factory, request):
    """A bundle of 300 items with attributes, of which every seventh is a newcomer."""
    return write_shop(tmp_path_factory.mktemp("shop") / "bundle", with_columns=request.param)


ADDED = [
    {"id": "sku-1", "text": "coffee", "price": 12, "genre": "jazz", "stock": 3},
    {"id": "sku-2", "text": "red trail shoe", "price": 60, "tags": ["folk", "crime"]},
    {"id": "item-3", "text": "jazz album", "genre": "folk", "sale": True, "stock": 0},
]
REMOVED = [{"id": "item-5"}, {"id": "item-7"}]
RULES = [
    {"genre": "jazz"},
    {"price": {"ge": 20, "lt": 30}, "stock": {"gt": 0}},
    {"not": {"genre": {"in": ["jazz", "folk"]}}},
    {"or": [{"sale": True, "genre": "crime"}, {"tags": {"all": ["folk", "jazz"]}}]},
    {"released": {"ge": "2025-01-01T10:00:00Z"}, "genre": {"exists": True}},
    {"genre": "crime", "sale": True, "stock": 4},
    {"genre": "nowhere"},
    {},
]


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from([None, *RULES]),
    st.none() | st.lists(st.integers(-2, ITEMS + 5), max_size=40),
    st.lists(st.integers(-2, ITEMS + 5), max_size=60),
    st.integers(1, 60),
    st.integers(0, 2**32),
    st.booleans(),
    st.sampled_from([{}, {"genre": 2}]),
)
def test_rankings_equal_brute_force(shop, where, listed, excluded, k, seed, is_changed, caps):
    """The k best are those that sorting all scores and a loop over the records give, bit for bit:
    with rules, lists of items, exclusions, caps, and a catalog that the device changed."""
    scorer = Scorer(Bundle.open(shop))
    if is_changed:
        scorer = scorer.with_overlay([*ADDED, *REMOVED])
    user = np.random.default_rng(seed).standard_normal(16).astype(np.float32)
    everything = scorer.rank(user, ITEMS + 9)
    names = [f"item-{row}" for row in listed or ()]
    ids = None if listed is None else (*names, "sku-1", "gone")
    rule = None if where is None else rules.parse(where)
    eligible = scorer.eligible(rule, ids)
    out = scorer.rows_of(tuple(f"item-{row}" for row in excluded))
    result = scorer.rank(user, k, out, caps, eligible)

    def record_of(row):
        item = scorer.item(row)
        return {"title": item.title, **item.attributes}

    left = [
        (row, score)
        for row, score in zip(everything.rows.tolist(), everything.scores.tolist(), strict=True)
        if (where is None or naive_match(where, record_of(row), TIMES))
        and (ids is None or scorer.item(row).id in ids)
        and row not in out
    ]
    assert result.eligible == len(left) or caps
    rows = [row for row, _ in left]
    if caps:
        groups = [[]] * (ITEMS + 9)
        for row in rows:
            groups[row] = [record_of(row)["genre"]] if "genre" in record_of(row) else []
        rows = naive.naive_capped(rows, groups, 2, k, [])
    assert result.rows.tolist() == rows[:k]
    scores = dict(left)
    assert result.scores.tolist() == [scores[row] for row in rows[:k]]

    pool = result.rows
    found = scorer.newcomers_outside(user, ITEMS + 9, out, caps, pool, eligible)
    newcomers = [found.row(i) for i in range(len(found))]
    expected = sorted(set(scores) & set(scorer.newcomers.tolist()) - set(pool.tolist()))
    if not caps:
        assert newcomers == expected
    else:
        assert set(newcomers) <= set(expected)
        union = [groups[row] for row in pool.tolist() + newcomers]
        assert all(union.count([genre]) <= 2 for genre in GENRES)


def opened(shop, tmp_path, **options):
    """Open an engine with its own clock and randomness."""
    return Engine.open(
        shop, tmp_path / "state", clock=FakeClock(), entropy=FakeEntropy(), **options
    )


def decisions_of(engine):
    return [event for event in stored(engine) if isinstance(event, Decision)]


@pytest.mark.parametrize("guarded", [0, 1])
@pytest.mark.parametrize("scheme", ["sequential", "mixture", "softmax"])
def test_propensities_equal_the_enumeration_of_all_slates(tmp_path, scheme, guarded):
    """With 4 items in the pool and 3 eligible newcomers outside, each slot's conditional and
    marginal are those of enumerating every slate that the rules allow."""
    plan = Exploration(
        scheme, 0.5, pool=4, newcomers=0.5, guarded=guarded, temperature=0.5, daily=None
    )
    where = {"genre": "crime", "sale": {"exists": True}}
    write_bundle(
        tmp_path / "bundle",
        items=ITEMS,
        attributes=attributes_of,
        exploration=plan,
        newcomers=range(ITEMS),
    )
    listed = None
    with opened(tmp_path / "bundle", tmp_path) as engine:
        listed = [item.id for item in engine.recommend("anna", 7, where=where, greedy=True)]
        slates = [engine.recommend("anna", 3, where=where, among=listed) for _ in range(60)]
        assert all(engine.explain(slate.decision).is_identical for slate in slates)
        scorer = scorer_of(engine)
        vector = scorer.user_model.user_vector(scorer.user_model.initial_state())
        scores = scorer.rank(vector, 4, eligible=scorer.eligible(None, tuple(listed))).scores
        event = decisions_of(engine)[-1]
    assert (event.eligible, event.pool, event.newcomers) == (7, 4, 3)

    regular = quota.regular(plan)
    joint_of_regular = {
        "sequential": lambda ranks, pool: naive.joint(ranks, pool, regular.epsilon),
        "mixture": lambda ranks, pool: naive.joint_mixture(ranks, pool, regular.epsilon),
        "softmax": lambda ranks, pool: naive.joint_softmax(
            ranks, scores[guarded:].tolist(), plan.temperature
        ),
    }[scheme]
    open_pool = 4 - guarded
    joint = {
        ranks: naive.joint_newcomers(
            ranks, open_pool, 3, 0.25, lambda regular: joint_of_regular(regular, open_pool)
        )
        for ranks in itertools.permutations(range(open_pool + 3), 3 - guarded)
    }
    assert math.isclose(sum(joint.values()), 1.0)
    for slate in slates:
        ranks = tuple(item.rank - guarded for item in slate)[guarded:]
        for slot, item in enumerate(slate.items[guarded:]):
            above = sum(p for other, p in joint.items() if other[:slot] == ranks[:slot])
            same = sum(p for other, p in joint.items() if other[: slot + 1] == ranks[: slot + 1])
            assert item.propensity == pytest.approx(same / above)
            if item.marginal is not None:
                at_slot = sum(p for other, p in joint.items() if other[slot] == ranks[slot])
                assert item.marginal == pytest.approx(at_slot)


def test_every_slate_keeps_its_rules_and_names_its_pool(shop, tmp_path):
    """Explored items and newcomers meet the rule; k come while k are eligible; the event has the
    pool and its size, decisions replay, and the outcome stays valid on the wire."""
    where = {"genre": {"any": ["jazz", "folk"]}, "stock": {"gt": 1}}
    with opened(shop, tmp_path) as engine:
        engine.upsert_items(ADDED)
        slates = [engine.recommend("anna", 8, where=where) for _ in range(100)]
        assert all(engine.explain(slate.decision).is_identical for slate in slates)
        events = decisions_of(engine)
    expected = sum(
        naive_match(where, record, TIMES)
        for record in [
            *(attributes_of(row) for row in range(ITEMS) if row != 3),
            *ADDED,
        ]
    )
    assert any(item.newcomer for slate in slates for item in slate)
    for slate, event in zip(slates, events, strict=True):
        assert len(slate) == 8
        assert slate.shortage == ""
        assert slate.eligible == event.eligible == expected
        assert all(naive_match(where, item.attributes, TIMES) for item in slate)
        assert len(event.pool_items) == event.pool == 12
        assert semantic_fault(event) is None


def test_pages_repeat_nothing_and_end_with_the_last_eligible_item(shop, tmp_path):
    """Each page leaves out all pages before; together they hold every eligible item once."""
    where = {"genre": "crime"}
    eligible = {
        f"item-{row}" for row in range(ITEMS) if naive_match(where, attributes_of(row), TIMES)
    }
    shown = []
    with opened(shop, tmp_path) as engine:
        page = None
        while page is None or len(page) == 10:
            page = engine.recommend("anna", 10, where=where, after=page)
            shown += [item.id for item in page]
            assert engine.explain(page.decision).is_identical
        assert len(shown) == len(set(shown))
        assert set(shown) == eligible
        assert page.shortage == (
            f"{len(page)} of 10 items: {len(page)} are eligible by `where` and `after`"
        )
        last = engine.recommend("anna", 10, where=where, after=page)
        assert (len(last), last.eligible) == (0, 0)
        assert last.shortage == "0 of 10 items: 0 are eligible by `where` and `after`"
        with pytest.raises(ValueError, match="after: expected a slate of the user 'bert'"):
            engine.recommend("bert", 10, after=page)
        with pytest.raises(TypeError, match="after: expected what `recommend` returned"):
            engine.recommend("anna", 10, after=["item-1"])


def test_among_ranks_just_these(shop, tmp_path):
    """Only listed items are shown, unknown and repeated ids count for nothing."""
    listed = ["item-4", "gone", "item-8", "item-4", "item-12", "item-20"]
    with opened(shop, tmp_path) as engine:
        engine.remove_items(["item-20"])
        slate = engine.recommend("anna", 5, among=listed)
        assert {item.id for item in slate} == {"item-4", "item-8", "item-12"}
        assert slate.eligible == 3
        assert slate.shortage == "3 of 5 items: 3 are eligible by `among`"
        again = engine.recommend("anna", 5, among=slate, exclude=["item-8"], greedy=True)
        assert {item.id for item in again} == {"item-4", "item-12"}
        assert len(engine.recommend("anna", 5, among=[])) == 0
        capped = engine.recommend("anna", 3, among=listed, at_most={"sale": 1})
        assert "`at_most` leaves" in capped.shortage or len(capped) == 3
        assert len(decisions_of(engine)[0].pool_items) == 3


def test_pins_give_way_to_rules(shop, tmp_path):
    """A pinned item that a rule leaves out is not shown; the others of its slate are drawn."""
    jazz = [row for row in range(ITEMS) if attributes_of(row).get("genre") == "jazz"]
    other = [row for row in range(ITEMS) if attributes_of(row).get("genre") == "folk"]
    pin = {0: f"item-{other[0]}", 1: f"item-{jazz[0]}", 2: f"item-{jazz[1]}"}
    with opened(shop, tmp_path) as engine:
        slate = engine.recommend("anna", 5, where={"genre": "jazz"}, pin=pin)
        assert [item.id for item in slate if item.pinned] == [pin[1], pin[2]]
        assert (len(slate), slate.eligible) == (5, len(jazz))
        listed = [pin[1], "item-8"]
        slate = engine.recommend("anna", 5, where={"genre": "jazz"}, among=listed, pin=pin)
        assert [item.id for item in slate if item.pinned] == [pin[1]]
        page = engine.recommend("anna", 5, after=slate, pin=pin)
        assert [item.id for item in page if item.pinned] == [pin[0], pin[2]]


def test_randomized_response_does_not_tell_a_list(shop, tmp_path):
    """What an app lists may follow from true rewards: such a pool would tell them."""
    with opened(shop, tmp_path, privacy=1.0) as engine:
        engine.recommend("anna", 5, among=["item-1", "item-2"])
        engine.recommend("anna", 5, where={"genre": "jazz"})
        events = decisions_of(engine)
    assert events[0].pool_items is UNSET
    assert events[1].pool_items is not UNSET


def test_attributes_that_only_the_device_has_get_their_type_from_it(shop, tmp_path):
    """An attribute that the bundle lacks is typed by the added items."""
    with opened(shop, tmp_path) as engine:
        engine.upsert_items(
            [
                {"id": "sku-1", "text": "coffee", "weight": 5},
                {"id": "sku-2", "text": "jazz", "weight": 9},
            ]
        )
        slate = engine.recommend("anna", where={"weight": {"gt": 6}})
        assert [item.id for item in slate] == ["sku-2"]
        with pytest.raises(TypeError, match="weight: gt: expected a number"):
            engine.recommend("anna", where={"weight": {"gt": "heavy"}})


def test_an_added_value_of_another_type(shop, tmp_path):
    """It is an error where the bundle has types as columns, and nothing is added; else it counts
    as missing."""
    free = {"id": "sku-1", "text": "coffee", "price": "free"}
    with opened(shop, tmp_path) as engine:
        if Bundle.open(shop).columns is not None:
            expected = "items: sku-1: price: expected a number, found 'free'"
            with pytest.raises(TypeError, match=expected):
                engine.upsert_items([{"id": "sku-2", "text": "jazz"}, free])
            assert engine._active_bundle.scorer.overlay.records == ()
            return
        engine.upsert_items([free])
        slate = engine.recommend("anna", 300, where={"price": {"exists": False}}, greedy=True)
        assert "sku-1" in {item.id for item in slate}


def test_reasons_name_the_rules_in_force(shop, tmp_path):
    """`why` has the rule as it was given, and how many ids lists and pages had."""
    where = {"genre": "jazz"}
    with opened(shop, tmp_path) as engine:
        first = engine.recommend("anna", 3, where=where)
        second = engine.recommend("anna", 3, where=where, after=first)
        found = second[0].why().rules
        assert (found["where"], found["after"]) == (where, 3)
        listed = engine.recommend("anna", 3, among=["item-1", "item-2"])
        assert listed[0].why().rules["among"] == 2
