"""Newcomers on the device: which items are, and that each gets its exact share of slots."""

from __future__ import annotations

import math
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from safetensors.numpy import load_file, save_file

from sanderling import Engine
from sanderling.bundle.manifest import Exploration
from sanderling.bundle.reader import Bundle
from sanderling.errors import BundleError
from sanderling.events import codec
from sanderling.events.schema import Decision
from sanderling.events.semantics import semantic_fault
from sanderling.exploration import newcomers as quota
from sanderling.ranking.newcomers import Newcomers, outside
from sanderling.ranking.scorer import Scorer
from tests.support.bundles import reseal, write_bundle
from tests.support.engines import scorer_of, stored
from tests.support.fakes import FakeClock, FakeEntropy

LISTED = (3, 17, 18, 40, 44, 49)
PLAN = Exploration("sequential", 0.5, pool=12, newcomers=0.5)
TEXTS = ["red trail shoe", "jazz album", "coffee"]


def opened(tmp_path, plan=PLAN, listed=LISTED, **options):
    """Open an engine on a bundle of 50 items of which some are newcomers."""
    write_bundle(tmp_path / "bundle", exploration=plan, newcomers=listed)
    return Engine.open(
        tmp_path / "bundle",
        tmp_path / "state",
        clock=FakeClock(),
        entropy=FakeEntropy(),
        **options,
    )


def decisions_of(engine):
    return [event for event in stored(engine) if isinstance(event, Decision)]


def shown_newcomers(slates):
    return Counter(item.id for slate in slates for item in slate if item.newcomer)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**32), st.integers(0, 30), st.integers(0, 12), st.integers(0, 12))
def test_newcomers_outside_a_pool_equal_the_naive_ones(seed, size, pool, excluded):
    """Each newcomer that is neither in the pool nor excluded is found, once, in order."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(40, size, replace=False)).astype(np.int64)
    others = rng.choice(45, pool, replace=False), rng.integers(-1, 45, excluded)
    found = outside(rows, np.isin(np.arange(46), rows), *others)
    expected = [row for row in rows.tolist() if row not in others[0] and row not in others[1]]
    assert [found.row(i) for i in range(len(found))] == expected


def test_old_bundles_have_no_newcomers(tmp_path):
    """A bundle without the tensor opens and verifies; a listing is read as it was written."""
    write_bundle(tmp_path / "old")
    write_bundle(tmp_path / "new", newcomers=LISTED)
    assert "newcomers" not in load_file(tmp_path / "old" / "items.safetensors")
    assert Bundle.open(tmp_path / "old", verify=True).items.newcomers.tolist() == []
    assert Bundle.open(tmp_path / "new", verify=True).items.newcomers.tolist() == list(LISTED)


@pytest.mark.parametrize("rows", [[3, 3], [5, 4], [-1], [50], [[1, 2]], list(range(51))], ids=str)
def test_a_wrong_list_of_newcomers_is_a_fault(tmp_path, rows):
    """Rows that are repeated, out of order or no items are found when a bundle is verified."""
    write_bundle(tmp_path / "bundle")
    path = tmp_path / "bundle" / "items.safetensors"
    save_file({**load_file(path), "newcomers": np.array(rows, np.int32)}, path)
    reseal(tmp_path / "bundle")
    with pytest.raises(BundleError, match=r"items\.safetensors: newcomers"):
        Bundle.open(tmp_path / "bundle", verify=True)


def test_which_items_are_newcomers(tmp_path):
    """Listed and added items are newcomers; removed ones and replaced established ones are not."""
    with opened(tmp_path) as engine:
        scorer = scorer_of(engine)
        assert scorer.newcomers.tolist() == list(LISTED)
        engine.upsert_items(
            [{"id": id, "text": "a shoe"} for id in ("sku-1", "item-2", "item-17", "sku-2")]
        )
        engine.remove_items(["item-44", "item-5", "sku-2"])
        scorer = scorer_of(engine)
        ids = [scorer.item(row).id for row in scorer.newcomers.tolist()]
    assert ids == ["item-3", "item-18", "item-40", "item-49", "sku-1", "item-17"]


def test_an_added_item_is_a_newcomer_until_a_later_bundle_knows_it(tmp_path):
    """A later bundle that lists an added item keeps it a newcomer; one that does not ends it."""
    folders = {name: tmp_path / name for name in ("now", "listing", "knowing")}
    write_bundle(folders["now"], items=10)
    write_bundle(folders["listing"], release=2, items=11, created=1_900_000_000, newcomers=[10])
    write_bundle(folders["knowing"], release=3, items=11, created=1_900_000_000)
    found = {}
    for name, folder in folders.items():
        with Engine.open(folder, tmp_path / "state", clock=FakeClock()) as engine:
            if name == "now":
                engine.upsert_items([{"id": "item-10", "text": "coffee"}])
            scorer = scorer_of(engine)
            found[name] = [scorer.item(row).id for row in scorer.newcomers.tolist()]
    assert found == {"now": ["item-10"], "listing": ["item-10"], "knowing": []}


@pytest.mark.parametrize("guarded", [0, 2])
@pytest.mark.parametrize("scheme", ["sequential", "mixture", "softmax"])
def test_listed_and_added_newcomers_get_their_exact_share(tmp_path, scheme, guarded):
    """Each newcomer outside the pool is shown as often as its logged propensities say; decisions
    replay bit for bit, and their events are valid on the wire and tell all that they need."""
    plan = msgspec.structs.replace(PLAN, scheme=scheme, guarded=guarded, temperature=0.3)
    slots = 5
    with opened(tmp_path, plan) as engine:
        engine.upsert_items([{"id": f"sku-{i}", "text": text} for i, text in enumerate(TEXTS)])
        slates = [engine.recommend("anna", k=slots, exclude=["item-3"]) for _ in range(500)]
        assert all(engine.explain(slate.decision).is_identical for slate in slates[-200:])
        assert engine.explain(slates[-1].decision).epsilon == quota.regular(plan).epsilon
        events = decisions_of(engine)
        scorer = scorer_of(engine)
        pool = scorer.rank(scorer.user_model.user_vector(scorer.user_model.initial_state()), 12)

    outside_pool = set(scorer.newcomers.tolist()) - {*pool.rows.tolist(), 3}
    newcomers = {scorer.item(row).id for row in outside_pool}
    shown = shown_newcomers(slates)
    assert set(shown) == newcomers
    assert "sku-0" in shown
    expected = 500 * (slots - guarded) * 0.25 / len(newcomers)
    assert all(abs(count - expected) < 5.0 * math.sqrt(expected) for count in shown.values())

    for event, slate in zip(events, slates, strict=True):
        assert semantic_fault(event) is None
        assert codec.decode(codec.encode(event)) == event
        assert (event.newcomers, event.newcomer_rate) == (len(newcomers), 0.25)
        assert event.epsilon == quota.regular(plan).epsilon
        assert len(event.pool_items) == event.pool  # the device's own items shape it
        above = 0
        for item, slot in zip(slate, event.slate, strict=True):
            assert (slot.newcomer is True, slot.marginal) == (item.newcomer, item.marginal)
            if item.newcomer:
                assert item.slot >= guarded
                assert item.explored
                assert item.propensity == 0.25 / (len(newcomers) - above)
                above += 1


def test_the_score_of_a_newcomer_is_that_of_the_ranking(tmp_path):
    """A newcomer's score has the bits that the full ranking gives it, added or listed."""
    with opened(tmp_path) as engine:
        engine.upsert_items([{"id": f"sku-{i}", "text": text} for i, text in enumerate(TEXTS)])
        scorer = scorer_of(engine)
        user = np.random.default_rng(1).standard_normal(16).astype(np.float32)
        ranking = scorer.rank(user, 60)
    scores = [scorer.score(user, row) for row in ranking.rows.tolist()]
    assert scores == ranking.scores.tolist()


def test_greedy_guarded_and_spent_slates_show_no_newcomer(tmp_path):
    """Greedy calls, the kill switch, a spent budget and a quota of 0 leave the slate as it was."""
    with opened(tmp_path, msgspec.structs.replace(PLAN, epsilon=1.0, newcomers=1.0)) as engine:
        assert len(shown_newcomers([engine.recommend("anna", k=4)])) == 4
        greedy = [engine.recommend("anna", k=4, greedy=True)]
        engine.exploring = False
        greedy.append(engine.recommend("anna", k=4))
        events = decisions_of(engine)[1:]
    assert not shown_newcomers(greedy)
    assert [item.propensity for slate in greedy for item in slate] == [1.0] * 8
    assert {(event.newcomers, event.newcomer_rate) for event in events} == {(UNSET, UNSET)}

    daily = msgspec.structs.replace(PLAN, epsilon=1.0, newcomers=1.0, daily=4)
    (tmp_path / "other").mkdir()
    with opened(tmp_path / "other", daily) as engine:
        slates = [engine.recommend("anna", k=4) for _ in range(3)]
    assert [len(shown_newcomers([slate])) for slate in slates] == [4, 0, 0]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 3), st.integers(1, 20))
def test_caps_hold_for_pool_and_newcomers_together(tmp_path_factory, seed, at_most, words, k):
    """No group has more than its cap in pool and newcomers together, so none has in any slate;
    a newcomer is left out only where the cap leaves it no room."""
    folder = tmp_path_factory.getbasetemp() / "capped"
    if not folder.exists():
        write_bundle(folder, newcomers=range(0, 50, 2))
    rng = np.random.default_rng(seed)
    scorer = Scorer(Bundle.open(folder)).with_overlay(
        {"id": f"sku-{i}", "text": TEXTS[i], "price": 10 + i} for i in range(words)
    )
    user = rng.standard_normal(16).astype(np.float32)
    excluded = rng.integers(-1, 50, 5)
    caps = {"price": at_most, "kind": 1}
    pool = scorer.rank(user, k, excluded, caps)
    found: Newcomers = scorer.newcomers_outside(user, 60, excluded, caps, pool.rows)
    rows = [found.row(i) for i in range(len(found))]
    union = pool.rows.tolist() + rows
    prices = Counter(scorer.item(row).attributes["price"] for row in union)

    assert len(set(union)) == len(union)
    assert set(rows) <= set(scorer.newcomers.tolist()) - set(excluded.tolist())
    assert max(prices.values()) <= at_most
    left_out = set(scorer.newcomers.tolist()) - set(union) - set(excluded.tolist())
    assert all(prices[scorer.item(row).attributes["price"]] == at_most for row in left_out)


def test_capped_decisions_log_their_pool(tmp_path):
    """A capped slate never exceeds its cap, newcomers included, and its event names the pool."""
    plan = msgspec.structs.replace(PLAN, epsilon=0.8)
    with opened(tmp_path, plan) as engine:
        engine.upsert_items([{"id": f"sku-{i}", "text": "coffee", "price": 12} for i in range(4)])
        slates = [engine.recommend("anna", k=6, at_most={"price": 1}) for _ in range(200)]
        assert all(engine.explain(slate.decision).is_identical for slate in slates)
        events = decisions_of(engine)
    assert shown_newcomers(slates)
    for event, slate in zip(events, slates, strict=True):
        prices = [item.attributes["price"] for item in slate]
        assert len(set(prices)) == len(prices)
        assert len(event.pool_items) == event.pool == 12
        assert semantic_fault(event) is None
        assert codec.decode(codec.encode(event)) == event
    assert semantic_fault(msgspec.structs.replace(events[0], pool_items=["x"] * 12))


def test_a_large_pool_is_not_logged(tmp_path):
    """A pool whose ids have no room in the event is left out, and the decision stays valid."""
    assert codec.fitting_pool(["x"] * 3, 3) == ["x"] * 3
    assert codec.fitting_pool(["x" * 500] * 100, 100) is UNSET
    assert codec.fitting_pool(["x"] * 1001, 1001) is UNSET
    assert codec.fitting_pool([], 0) is UNSET


def test_rewards_of_newcomers_do_not_move_the_residual(tmp_path):
    """The residual ranks the pool alone: the reward of a newcomer is stored and moves nothing."""
    plan = msgspec.structs.replace(PLAN, epsilon=1.0, newcomers=1.0)
    with opened(tmp_path, plan, adapt=True) as engine:
        slate = engine.recommend("anna", k=4)
        before = [item.score for item in engine.recommend("anna", k=9, greedy=True)]
        assert engine.reward_all(slate, dict.fromkeys(slate, 1.0), observe=False)
        after = [item.score for item in engine.recommend("anna", k=9, greedy=True)]
    assert before == after


def newcomer_decision(tmp_path):
    """Return a decision with a newcomer in its first slot."""
    with opened(tmp_path, msgspec.structs.replace(PLAN, epsilon=1.0, newcomers=1.0)) as engine:
        engine.recommend("anna", k=2)
        return decisions_of(engine)[0]


@pytest.mark.parametrize(
    ("changes", "of_slot"),
    [
        ({"newcomers": UNSET}, {}),
        ({"newcomer_rate": UNSET}, {}),
        ({"newcomers": UNSET, "newcomer_rate": UNSET}, {}),
        ({"newcomers": 100}, {}),
        ({"newcomer_rate": 0.5}, {}),
        ({"newcomers": 1}, {}),
        ({"guarded": 1}, {}),
        ({}, {"explored": False}),
        ({}, {"rank": 3}),
        ({}, {"rank": 10_000}),
        ({}, {"conditional": 0.9}),
    ],
)
def test_decisions_that_no_quota_makes_are_rejected(tmp_path, changes, of_slot):
    """Counts, ranks and probabilities of newcomers that contradict one another are a fault."""
    event = newcomer_decision(tmp_path)
    assert semantic_fault(event) is None
    first = msgspec.structs.replace(event.slate[0], **of_slot)
    changed = msgspec.structs.replace(event, slate=[first, *event.slate[1:]], **changes)
    assert "newcomer" in semantic_fault(changed)
