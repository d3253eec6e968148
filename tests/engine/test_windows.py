"""Reward windows: one default outcome for a seen slot without a reward; late rewards are marked."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from sanderling import Engine
from sanderling.events.schema import Outcome
from sanderling.users.reward_windows import (
    MAX_CLOSED_AT_ONCE,
    MAX_OPEN,
    PREFIX,
    RewardWindows,
)
from tests.support.bundles import write_bundle
from tests.support.engines import outbox_of, profiles_of, scorer_of, stored
from tests.support.fakes import FakeClock, FakeEntropy

WINDOW_S = 60.0


def opened(tmp_path, clock, **settings):
    """Open an engine with a window of a minute on a bundle of this test."""
    if not (tmp_path / "bundle").exists():
        write_bundle(tmp_path / "bundle")
    return Engine.open(
        tmp_path / "bundle", tmp_path / "state", clock=clock, entropy=FakeEntropy(),
        **{"window_s": WINDOW_S, **settings},
    )  # fmt: skip


def outcomes(engine):
    """Return slot, value and lateness of the stored outcomes, in order."""
    found = [event for event in stored(engine) if isinstance(event, Outcome)]
    return [(event.slot, event.value, event.late) for event in found]


def test_a_seen_slot_without_a_reward_counts_as_not_clicked(tmp_path):
    """Only seen slots without a reward get -1, once, and not before the window has ended."""
    clock = FakeClock()
    with opened(tmp_path, clock) as engine:
        slate = engine.recommend("anna", k=5)
        engine.seen(slate, [slate[0], slate[1].id, slate[2]])
        engine.reward(slate, slate[1], 1.0)
        clock.advance(WINDOW_S - 1)
        engine.flush()
        assert outcomes(engine) == [(1, 1.0, UNSET)]
        clock.advance(2)
        for _ in range(3):
            engine.recommend("anna")
        assert outcomes(engine) == [(1, 1.0, UNSET), (0, -1.0, UNSET), (2, -1.0, UNSET)]


def test_windows_end_under_a_clock_that_was_never_set(tmp_path):
    """On a device whose clock starts in 1970 a window of a minute lasts a minute."""
    clock = FakeClock(wall_ms=0)
    with opened(tmp_path, clock) as engine:
        slate = engine.recommend("anna", k=2)
        engine.seen(slate)
        clock.advance(WINDOW_S - 1)
        assert engine.reward(slate, slate[0], 1.0)
        clock.advance(2)
        assert engine.reward(slate, slate[1], 1.0)
        assert outcomes(engine) == [(0, 1.0, UNSET), (1, -1.0, UNSET), (1, 1.0, True)]


def test_windows_survive_a_restart(tmp_path):
    """A window that ends while the app is closed gets its default when the app is opened again,
    once."""
    clock = FakeClock()
    with opened(tmp_path, clock) as engine:
        slate = engine.recommend("anna", k=3)
        engine.seen(slate)
    clock.advance(WINDOW_S + 1)
    for _ in range(2):
        with opened(tmp_path, clock) as engine:
            assert outcomes(engine) == [(0, -1.0, UNSET), (1, -1.0, UNSET), (2, -1.0, UNSET)]
            assert (
                RewardWindows(WINDOW_S, outbox_of(engine).states(PREFIX)).end_ms(slate.decision)
                < clock.wall_ms()
            )


@pytest.mark.parametrize("window_s", [None, 1.0, 3600.0])
def test_an_open_window_keeps_its_length(tmp_path, window_s):
    """With another `window_s`, or none, a window of an earlier run ends when it would have."""
    clock = FakeClock()
    with opened(tmp_path, clock) as engine:
        slate = engine.recommend("anna", k=2)
        engine.seen(slate)
    clock.advance(WINDOW_S / 2)
    with opened(tmp_path, clock, window_s=window_s) as engine:
        assert engine.reward(slate, slate[0], 1.0)
        clock.advance(WINDOW_S)
        engine.recommend("anna")
        assert outcomes(engine) == [(0, 1.0, UNSET), (1, -1.0, UNSET)]


def test_an_ended_window_leaves_nothing_stored(tmp_path):
    """After its window has ended nothing of a decision is stored, rewarded or not."""
    clock = FakeClock()
    with opened(tmp_path, clock) as engine:
        slate = engine.recommend("anna", k=2)
        engine.seen(slate)
        clock.advance(WINDOW_S + 1)
        engine.recommend("anna")
        assert engine.reward(slate, slate[0], 1.0)
        assert outbox_of(engine).states(PREFIX) == {}


def test_a_late_reward_settles_its_own_slot_only():
    """A reward for a window that has ended but is not closed yet leaves the defaults of other
    slots."""
    windows = RewardWindows(10.0, {})
    ids = [f"{number:012x}" + "0" * 20 for number in range(MAX_CLOSED_AT_ONCE + 1)]
    for decision in ids:
        windows.open_window(decision, "user", {0: "red", 1: "blue"}, 0)
    assert len(list(windows.close_ended(10**6))) == MAX_CLOSED_AT_ONCE
    windows.settle(ids[-1], "user", [0], 10**6)
    assert [closed.window.waiting() for closed in windows.close_ended(10**6)] == [{1: "blue"}]


def test_a_late_reward_is_kept_and_marked(tmp_path):
    """A click after the window is recorded after the default outcome, and marked as late."""
    clock = FakeClock()
    with opened(tmp_path, clock) as engine:
        slate = engine.recommend("anna", k=3)
        engine.seen(slate, [slate[0]])
        clock.advance(WINDOW_S + 1)
        assert engine.reward(slate, slate[0], 1.0)
        assert outcomes(engine) == [(0, -1.0, UNSET), (0, 1.0, True)]


def test_default_outcomes_update_the_residual(tmp_path):
    """With `adapt`, default outcomes change the user's residual."""
    clock = FakeClock()
    with opened(tmp_path, clock, adapt=True) as engine:
        for _ in range(3):
            slate = engine.recommend("anna", k=5)
            engine.seen(slate)
            engine.reward(slate, slate[4], 1.0)
        clock.advance(WINDOW_S + 1)
        before = profiles_of(engine).snapshot("anna", clock.wall, scorer_of(engine)).residual.copy()
        engine.recommend("ben")
        after = profiles_of(engine).snapshot("anna", clock.wall, scorer_of(engine)).residual
        assert (before != after).any()


def test_forgetting_a_user_drops_the_open_windows(tmp_path):
    """No default outcome comes for a forgotten user, now or after a restart."""
    clock = FakeClock()
    with opened(tmp_path, clock) as engine:
        engine.seen(engine.recommend("anna", k=3))
        engine.forget_user("anna")
        assert outbox_of(engine).states(PREFIX) == {}
        clock.advance(WINDOW_S + 1)
        engine.recommend("ben")
        assert outcomes(engine) == []


def test_seen_needs_a_window_and_a_shown_item(tmp_path):
    """Without `window_s`, or for an item that was not shown, `seen` raises ValueError that says
    what was expected."""
    with (
        opened(tmp_path, FakeClock()) as engine,
        pytest.raises(ValueError, match="one of the slate's 3 items"),
    ):
        engine.seen(engine.recommend("anna", k=3), ["nobody knows"])
    with (
        opened(tmp_path, FakeClock(), window_s=None) as engine,
        pytest.raises(ValueError, match="window_s"),
    ):
        engine.seen(engine.recommend("anna"))


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), 1e9])
def test_an_impossible_window_is_rejected(tmp_path, seconds):
    """Opening with an impossible window raises ValueError that names it."""
    with pytest.raises(ValueError, match="window_s: expected seconds"):
        opened(tmp_path, FakeClock(), window_s=seconds)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["see", "settle", "close", "restart"]),
            st.integers(0, 3),
            st.integers(0, 3),
        )
    )
)
def test_each_seen_slot_is_settled_or_closed_exactly_once(steps):
    """Over any course of seeing, rewarding, waiting and restarting, a slot that was seen has one
    end, never two."""
    store: dict[str, bytes] = {}
    windows, now = RewardWindows(10.0, {}), 0
    open_slots: set[tuple[str, int]] = set()
    settled: set[tuple[str, int]] = set()

    def put(states):
        for key, value in states.items():
            store.pop(key, None) if not value else store.update({key: value})

    ids = [f"{at * 4000:012x}" + "0" * 20 for at in range(4)]
    for step, which, slot in steps:
        decision = ids[which]
        if step == "see":
            put(windows.open_window(decision, "user", {slot: "item"}, now))
            if windows.end_ms(decision) > now:
                open_slots |= {(decision, slot)} - settled
        elif step == "settle":
            put(windows.settle(decision, "user", {slot}, now))
            if windows.end_ms(decision) > now:
                open_slots.discard((decision, slot))
                settled.add((decision, slot))
        elif step == "close":
            now += 3000
            for closed, window, states in windows.close_ended(now):
                put(states)
                assert window.end_ms <= now
                assert {(closed, slot) for slot in window.waiting()} == {
                    place for place in open_slots if place[0] == closed
                }
                open_slots = {place for place in open_slots if place[0] != closed}
                settled = {place for place in settled if place[0] != closed}
        else:
            windows = RewardWindows(10.0, dict(store))
        assert {
            (d, at) for d, seen in windows.open_windows().items() for at in seen.waiting()
        } == open_slots
        assert windows.is_due(now) or not any(
            seen.end_ms <= now for seen in windows.open_windows().values()
        )


def test_the_oldest_windows_close_early_beyond_a_bound():
    """Memory is bounded: beyond `MAX_OPEN` the oldest windows close, with their default
    outcomes."""
    windows = RewardWindows(1000.0, {})
    for number in range(MAX_OPEN + 5):
        windows.open_window(f"{number:032x}", "user", {0: "item"}, 0)
    closed = [decision for decision, _, _ in windows.close_ended(0)]
    assert closed == [f"{number:032x}" for number in range(5)]
    assert len(windows.open_windows()) == MAX_OPEN


def test_a_reward_before_seen_is_not_followed_by_a_default(tmp_path):
    """A slot that was rewarded gets no default, however often and whenever its slate is seen."""
    clock = FakeClock()
    with opened(tmp_path, clock) as engine:
        slate = engine.recommend("anna", k=2)
        engine.reward(slate, slate[0], 1.0)
        engine.seen(slate)
        engine.seen(slate)
        clock.advance(WINDOW_S + 1)
        engine.flush()
        assert outcomes(engine) == [(0, 1.0, UNSET), (1, -1.0, UNSET)]


def test_seen_after_the_window_opens_nothing(tmp_path):
    """A slate that is seen again after its window gives no default outcome."""
    clock = FakeClock()
    with opened(tmp_path, clock) as engine:
        slate = engine.recommend("anna", k=2)
        engine.reward(slate, slate[0], 1.0)
        clock.advance(WINDOW_S + 1)
        engine.flush()
        engine.seen(slate)
        engine.flush()
        assert outcomes(engine) == [(0, 1.0, UNSET)]
