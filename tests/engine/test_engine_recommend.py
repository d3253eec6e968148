"""The engine's slates, explanations and states, on a real bundle with a real outbox."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling import Engine
from sanderling.events.schema import Decision
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling.ranking import catalog_overlay
from tests.support.engines import stored
from tests.support.fakes import FakeClock, FakeEntropy


def test_a_slate_has_distinct_items_in_slots(engine):
    """A slate holds k different items with titles, in slots 0 … k-1, each with positive chances."""
    slate = engine.recommend("anna", k=10)
    assert len(slate) == len({item.id for item in slate}) == 10
    assert [item.slot for item in slate] == list(range(10))
    assert all(item.title and 0 < item.propensity <= 1 and 0 < item.marginal <= 1 for item in slate)
    assert slate[0].attributes["price"] >= 10


def test_greedy_slates_are_in_order_of_score(engine):
    """Without exploration scores fall along the slate, and nothing is explored."""
    slate = engine.recommend("anna", k=20, greedy=True)
    scores = [item.score for item in slate]
    assert scores == sorted(scores, reverse=True)
    assert [item.rank for item in slate] == list(range(20))
    assert all(item.propensity == 1.0 for item in slate)


def test_excluded_items_are_not_shown_and_unknown_ones_are_ignored(engine):
    """Exclusion holds under exploration too; when all items are excluded the slate is empty."""
    seen = [f"item-{row}" for row in range(40)]
    for _ in range(50):
        assert not {item.id for item in engine.recommend("anna", exclude=[*seen, "unknown"])} & set(
            seen
        )
    assert len(engine.recommend("anna", k=20, exclude=seen)) == 10
    assert len(engine.recommend("anna", exclude=[f"item-{row}" for row in range(50)])) == 0


def test_items_of_a_slate_exclude_themselves(engine):
    """A slate, its items, and ids mixed with items exclude what they name."""
    first = engine.recommend("anna", k=5, greedy=True)
    ids = {item.id for item in first}
    for exclude in (first, list(first), [first[0], *[item.id for item in first][1:]]):
        assert not ids & {item.id for item in engine.recommend("anna", k=45, exclude=exclude)}


@pytest.mark.parametrize(
    "exclude", ["item-1", b"item-1", 1, None, [1], [b"item-1"], [None], {"item-1": 1}]
)
def test_what_cannot_exclude_is_refused(engine, exclude):
    """A lone id and what is neither id nor item are TypeErrors: they would exclude nothing."""
    with pytest.raises(TypeError, match="exclude: expected"):
        engine.recommend("anna", exclude=exclude)


def test_a_decision_event_matches_the_slate(engine):
    """The event carries items, ranks, propensities, pool, and the checksum of the state at that
    time."""
    engine.observe("anna", "item-3", "click")
    slate = engine.recommend("anna", k=5)
    (decision,) = [event for event in stored(engine) if isinstance(event, Decision)]
    assert decision.id == slate.decision
    assert [(s.item, s.rank, s.conditional, s.marginal) for s in decision.slate] == [
        (i.id, i.rank, i.propensity, i.marginal) for i in slate
    ]
    assert (decision.pool, decision.eligible, decision.epsilon, decision.state_events) == (
        20,
        50,
        0.1,
        1,
    )
    assert decision.state_checksum == next_checksum(NO_EVENTS, "item-3", "click")


def test_behaviour_updates_the_state_at_once_and_survives_a_restart(bundle, tmp_path):
    """An observation changes the next slate, and a new process starts from the same state."""
    with Engine.open(bundle, tmp_path) as engine:
        before = [item.score for item in engine.recommend("anna", greedy=True)]
        for row in (3, 7, 11):
            engine.observe("anna", f"item-{row}", "purchase")
        after = [item.score for item in engine.recommend("anna", greedy=True)]
        assert after != before
    with Engine.open(bundle, tmp_path) as engine:
        assert [item.score for item in engine.recommend("anna", greedy=True)] == after


def test_explain_replays_bit_for_bit(engine):
    """A decision is replayed exactly from its id, whatever happened since."""
    slates = [
        engine.recommend("anna", context=f"rainy evening {i}", exclude=["item-1"])
        for i in range(20)
    ]
    engine.observe("anna", "item-9", "click")
    for slate in slates:
        explained = engine.explain(slate.decision)
        assert explained.is_identical
        assert explained.slate == slate.items
        assert len(explained.greedy) == 10
    with pytest.raises(KeyError):
        engine.explain("0" * 32)


@settings(deadline=None, max_examples=80)
@given(st.text(max_size=300) | st.sampled_from(["\ud800", "\0", "a" * 100_000, "🐦‍⬛" * 50]))
def test_recommend_takes_any_text(bundle, text):
    """Any user name, context and exclusion gives a slate of finite scores."""
    with Engine.open(bundle) as engine:
        slate = engine.recommend(text, k=3, context=text, exclude=[text])
        assert len(slate) == 3
        assert np.isfinite([item.score for item in slate]).all()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"user": 3}, TypeError),
        ({"k": "10"}, TypeError),
        ({"k": True}, TypeError),
        ({"k": 0}, ValueError),
        ({"k": 2**31}, ValueError),
        ({"context": b"x"}, TypeError),
    ],
)
def test_wrong_arguments_are_named(engine, arguments, error):
    """Arguments of a wrong type raise TypeError, impossible numbers ValueError, each naming the
    argument."""
    with pytest.raises(error, match=next(iter(arguments))):
        engine.recommend(**{"user": "anna", **arguments})


def test_context_leaves_the_device_only_when_shared(bundle, tmp_path):
    """The context vector is on the wire if and only if the app opened the engine with
    share_context."""
    for share in (False, True):
        with Engine.open(bundle, tmp_path / str(share), share_context=share) as engine:
            engine.recommend("anna", context="rainy evening")
            (decision,) = stored(engine)
            assert (decision.context is not None) == share


def test_the_same_clock_and_entropy_give_the_same_slates(bundle, tmp_path):
    """Clock and entropy are the only sources of randomness."""
    slates = []
    for name in ("a", "b"):
        with Engine.open(
            bundle, tmp_path / name, clock=FakeClock(), entropy=FakeEntropy()
        ) as engine:
            slates.append([engine.recommend(f"user-{i}").items for i in range(30)])
    assert slates[0] == slates[1]
    assert any(item.explored for slate in slates[0] for item in slate)


def test_recommending_goes_on_while_items_are_being_added(engine, monkeypatch):
    """Requests during an upsert are answered by the scorer from before it."""
    is_writing = threading.Event()
    may_write = threading.Event()

    def write_slowly(*_):
        is_writing.set()
        assert may_write.wait(10)

    monkeypatch.setattr(catalog_overlay, "write", write_slowly)
    upserting = threading.Thread(
        target=engine.upsert_items, args=([{"id": "new", "text": "red shoe"}],)
    )
    upserting.start()
    try:
        assert is_writing.wait(10)
        assert len(engine.recommend("anna", k=51)) == 50
    finally:
        may_write.set()
        upserting.join(10)
    assert len(engine.recommend("anna", k=51)) == 51
