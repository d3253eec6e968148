"""Boosts: added to scores before the pool is chosen, in an exact top-k of all items."""

from __future__ import annotations

import math
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from sanderling import Engine
from sanderling.bundle.manifest import Exploration
from sanderling.bundle.reader import Bundle
from sanderling.events import codec
from sanderling.events.schema import Decision
from sanderling.events.semantics import semantic_fault
from sanderling.ranking import boosts, eligibility, partial_indexes, rules
from sanderling.ranking.scorer import Scorer
from tests.support.bundles import record, trying, write_bundle
from tests.support.engines import scorer_of, stored
from tests.support.fakes import FakeClock, FakeEntropy
from tests.support.naive import naive_capped

ITEMS = 50
PLAN = Exploration("sequential", 0.5, pool=12, newcomers=0.3)
ADDED = [{"id": f"sku-{i}", "text": f"coffee {i}", "price": 12 + 20 * i} for i in range(4)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle of 50 items with prices of 10 to 59."""
    folder = tmp_path_factory.mktemp("boosts") / "bundle"
    write_bundle(folder, exploration=PLAN, newcomers=(3, 17, 18, 40, 44, 49))
    return folder


@pytest.fixture(scope="module", params=[0, 3, 512, "partial"])
def scorer(bundle, request):
    """A scorer of this bundle with items of the device, one of which replaces a bundled one; with
    parts that are searched, in partial indexes or not, or few rows that are scored one by one."""
    is_partial = request.param == "partial"
    changes = [*ADDED, {"id": "item-5", "text": "jazz album", "price": 33}, {"id": "item-6"}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eligibility, "FEW_ROWS", 0 if is_partial else request.param)
        if is_partial:
            patch.setattr(partial_indexes, "MIN_ROWS", 0)
            patch.setattr(partial_indexes, "SCANS_PER_PACK", 0)
        yield Scorer(Bundle.open(bundle)).with_overlay(changes)


@pytest.fixture
def engine(bundle, tmp_path):
    """An engine on this bundle."""
    with Engine.open(bundle, tmp_path / "state", clock=FakeClock(), entropy=FakeEntropy()) as one:
        yield one


def decisions_of(engine) -> list[Decision]:
    return [event for event in stored(engine) if isinstance(event, Decision)]


def price_of(scorer, row):
    return scorer.item(row).attributes["price"]


amounts = st.sampled_from([-2.0, -0.1, 0.0, 0.1, 0.5, 0.5, 3.0])
entries = st.lists(st.tuples(st.integers(5, 65), amounts), min_size=1, max_size=4)


def boost_of(entries):
    """Return boosts of all items from a price on."""
    return [{"where": {"price": {"ge": price}}, "by": by} for price, by in entries]


def total(entries, price):
    """Return what boosts add for a price: the slow twin, in the order of the entries."""
    added = 0.0
    for least, by in entries:
        added += by if price >= least else 0.0
    return added


@settings(deadline=None, max_examples=120)
@given(
    entries=entries,
    seed=st.integers(0, 2**32),
    k=st.integers(0, 60),
    below=st.sampled_from([None, 40, 15, 5]),
    listed=st.none() | st.lists(st.integers(0, ITEMS + 2), max_size=20),
    cap=st.sampled_from([None, 1, 2]),
)
def test_rankings_equal_sorting_all_boosted_scores(scorer, entries, seed, k, below, listed, cap):
    """Rows and scores are those of sorting all eligible items by score plus boosts, under rules,
    lists, exclusions and caps, whether parts are searched or scored one by one."""
    rng = np.random.default_rng(seed)
    user = rng.standard_normal(16).astype(np.float32)
    excluded = rng.integers(-1, ITEMS + 4, 6)
    every = [row for row in range(ITEMS + 5) if row not in (5, 6)]
    ids = None if listed is None else [scorer.item(every[row]).id for row in listed]
    eligible = [
        row
        for row in every
        if row not in excluded
        and (below is None or price_of(scorer, row) < below)
        and (ids is None or scorer.item(row).id in ids)
    ]
    plain = dict(zip(eligible, scorer.scores(user, np.array(eligible, np.int64)), strict=True))
    lifted = {row: plain[row] + total(entries, price_of(scorer, row)) for row in eligible}
    ranking = sorted(eligible, key=lambda row: (-lifted[row], -plain[row], row))
    if cap is not None:
        groups = {row: [price_of(scorer, row)] for row in eligible}
        ranking = naive_capped(ranking, groups, cap, k, [])

    rule = None if below is None else rules.parse({"price": {"lt": below}})
    given_ = rule, None if ids is None else tuple(ids), boosts.parse(boost_of(entries))
    caps = {} if cap is None else {"price": cap}
    found = scorer.rank(user, k, excluded, caps, scorer.eligible(*given_))
    assert found.rows.tolist() == ranking[:k]
    assert found.scores.tolist() == [lifted[row] for row in ranking[:k]]
    assert found.eligible == (len(eligible) if k or cap is None else 0)


@pytest.mark.parametrize("scheme", ["sequential", "mixture", "softmax"])
@settings(deadline=None, max_examples=25)
@given(entries=entries, amount=st.sampled_from([0.0, 0.4]), seed=st.integers(0, 2**32))
def test_boosted_decisions_replay_and_tell_their_boosts(
    tmp_path_factory, scheme, entries, amount, seed
):
    """Scores include the boosts, of pool, newcomers and pins; slates replay bit for bit; events are
    valid, come back equal, and name the pool with what was added to each of its scores."""
    folder = tmp_path_factory.mktemp("boosted")
    plan = msgspec.structs.replace(PLAN, scheme=scheme, temperature=0.3, guarded=1)
    write_bundle(folder / "bundle", exploration=plan, newcomers=(3, 17, 18, 40, 44, 49))
    with Engine.open(folder / "bundle", folder / "state", entropy=FakeEntropy(seed)) as engine:
        engine.upsert_items(ADDED)
        slate = engine.recommend(
            "anna", 6, boost=boost_of(entries), pin={2: "item-9"}, diversity=amount
        )
        assert engine.explain(slate.decision).is_identical
        event = decisions_of(engine)[-1]
        scorer = scorer_of(engine)
        vector = scorer.user_model.user_vector(scorer.user_model.initial_state())
        for item in slate:
            added = total(entries, item.attributes["price"])
            assert item.score == scorer.score(vector, scorer.find(item.id)) + added
        prices = [price_of(scorer, scorer.find(item)) for item in event.pool_items]
    assert event.boosts == [total(entries, price) for price in prices]
    assert semantic_fault(event) is None
    assert codec.decode(codec.encode(event)) == event
    for item in slate:
        if not (item.newcomer or item.pinned):
            assert event.pool_items[item.rank] == item.id


def test_a_boost_brings_items_from_beyond_the_pool(engine):
    """Items that the plain pool lacks lead where the boost is large, in their own order."""
    plain = engine.recommend("anna", ITEMS, greedy=True)
    dear = [item.id for item in plain if item.attributes["price"] >= 55]
    assert {item.id for item in plain[PLAN.pool :]} & set(dear)
    boost = [{"where": {"price": {"ge": 55}}, "by": 100}]
    slate = engine.recommend("anna", 5, boost=boost, greedy=True)
    assert [item.id for item in slate] == dear[:5]


def test_no_boost_is_the_plain_slate_to_the_bit(bundle, tmp_path):
    """An empty list decides and logs what no argument does; a boost of 0 has the same scores."""
    found = []
    for name, given_ in {"a": {}, "b": {"boost": []}}.items():
        with Engine.open(
            bundle, tmp_path / name, clock=FakeClock(), entropy=FakeEntropy()
        ) as engine:
            for _ in range(5):
                engine.recommend("anna", 6, **given_)
            found.append(decisions_of(engine))
    assert found[0] == found[1]
    assert {event.boosts for event in found[0]} == {UNSET}

    with Engine.open(bundle, tmp_path / "c", clock=FakeClock(), entropy=FakeEntropy()) as engine:
        slate = engine.recommend("anna", 6, boost=[{"where": {"price": {"gt": 0}}, "by": 0}])
        event = decisions_of(engine)[-1]
    assert [slot.item for slot in event.slate] == [slot.item for slot in found[0][0].slate]
    assert (len(slate), event.boosts) == (6, [0.0] * 12)


def test_boosts_without_room_for_the_pool_are_told_by_an_empty_list(bundle, tmp_path):
    """Under randomized response with exclusions the pool is not told, nor what was added to it,
    but that something was."""
    with Engine.open(bundle, tmp_path / "state", privacy=1.0) as engine:
        boost = [{"where": {"price": {"lt": 30}}, "by": 0.5}]
        engine.recommend("anna", 4, exclude=["item-1"], boost=boost)
        event = decisions_of(engine)[-1]
        assert (event.pool_items, event.boosts) == (UNSET, [])
        assert semantic_fault(event) is None
        engine.recommend("anna", 4, boost=boost)
        event = decisions_of(engine)[-1]
    assert len(event.boosts) == len(event.pool_items) == PLAN.pool
    assert "boosts" in semantic_fault(msgspec.structs.replace(event, boosts=[0.5]))
    assert "boosts" in semantic_fault(msgspec.structs.replace(event, pool_items=UNSET))


def test_the_residual_does_not_learn_what_the_app_promotes(bundle, tmp_path):
    """What a device learns from a reward is the same with an equal boost of all items."""
    learned = []
    for name, by in {"none": 0, "all": 7.5}.items():
        with Engine.open(
            bundle, tmp_path / name, adapt=True, clock=FakeClock(), entropy=FakeEntropy()
        ) as engine:
            slate = engine.recommend("anna", 3, boost=[{"where": {"price": {"gt": 0}}, "by": by}])
            engine.reward_all(slate, {item: float(item.slot == 0) for item in slate})
            learned.append([item.score for item in engine.recommend("anna", 5, greedy=True)])
    np.testing.assert_allclose(learned[0], learned[1], rtol=1e-12)


@pytest.mark.parametrize(
    ("boost", "error", "message"),
    [
        ({"where": {}, "by": 1}, TypeError, "boost: expected a list such as .*, found dict"),
        ("sea", TypeError, "boost: expected a list such as .*, found str"),
        (None, TypeError, "boost: expected a list such as .*, found NoneType"),
        ([1], TypeError, "boost: entry 0: expected a mapping such as .*, found int"),
        ([{"where": {}}], ValueError, "boost: entry 0: expected `where` and `by`, found"),
        ([{"where": {}, "by": "1"}], TypeError, "boost: entry 0: by: expected a number, found str"),
        ([{"where": {}, "by": True}], TypeError, "boost: entry 0: by: expected a number"),
        ([{"where": {}, "by": math.inf}], ValueError, r"by: expected a number in \[-1e\+06, "),
        ([{"where": {}, "by": math.nan}], ValueError, "by: expected a number in"),
        ([{"where": {}, "by": 10**400}], ValueError, "by: expected a number in"),
        ([{"where": {"cost": 1}, "by": 1}], ValueError, "boost: entry 0: where: cost: expected an"),
        ([{"where": {"price": "x"}, "by": 1}], TypeError, "boost: entry 0: where: price"),
        ([{"where": 5, "by": 1}], TypeError, "boost: entry 0: where: expected a mapping"),
        ([{"where": {"price": 1}, "by": 1}] * 17, ValueError, "at most 16 entries, found 17"),
        (
            [{"where": {"price": {"ge": 10 + 2 * i}}, "by": 1} for i in range(16)],
            ValueError,
            "boost: expected at most 16 different sums of `by` over the items, found 17",
        ),
    ],
)  # fmt: skip
def test_wrong_boosts_are_one_clear_error(engine, boost, error, message):
    """What is no boost is an error in the words of the caller, and nothing is recorded."""
    if message.endswith("found 17") and "sums" in message:
        engine.upsert_items([{"id": "cheap", "text": "coffee", "price": 1}])
    with pytest.raises(error, match=message):
        engine.recommend("anna", 3, boost=boost)
    assert decisions_of(engine) == []


def test_a_wrong_boost_does_not_abandon_a_release_on_trial(bundle, tmp_path):
    """The error is the caller's: the release that is not confirmed yet stays active."""
    with trying(bundle, tmp_path / "state") as engine:
        with pytest.raises(ValueError, match="boost"):
            engine.recommend("anna", 3, boost=[{"where": {"cost": 1}, "by": 1}])
        assert engine.release == 2


def test_reasons_name_the_boost(engine):
    """What the boost added stands apart from the effects, and their sum is the slate's score."""
    boost = [{"where": {"price": {"ge": 55}}, "by": 100}]
    slate = engine.recommend("anna", 3, boost=boost, greedy=True)
    reasons = slate[0].why()
    assert (reasons.boost, reasons.score) == (100.0, slate[0].score)
    assert "a boost by the app" in reasons.sentence
    assert Counter(reasons.rules)["boost"] == 1


def test_the_prices_of_the_tests_are_those_of_the_bundle():
    """Boosts of the tests split the bundle's items at prices that they have."""
    assert {record(row)["price"] for row in range(ITEMS)} == set(range(10, 60))
