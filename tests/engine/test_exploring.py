"""How an engine explores: schemes of bundles, the kill switch, guarded slots, daily budgets."""

from __future__ import annotations

import pytest
from msgspec import UNSET

from sanderling import Engine
from sanderling.bundle.manifest import Exploration
from sanderling.events.schema import Decision
from sanderling.users.exploration_budget import DAY_MS
from tests.support import bundles
from tests.support.bundles import write_bundle
from tests.support.engines import stored
from tests.support.fakes import FakeClock, FakeEntropy, FakeTransport


def opened(tmp_path, plan, clock=None, state="state"):
    """Open an engine on a bundle that explores by a plan."""
    folder = tmp_path / "bundle"
    if not folder.exists():
        write_bundle(folder, exploration=plan)
    return Engine.open(folder, tmp_path / state, clock=clock or FakeClock(), entropy=FakeEntropy())


def explored(slate):
    """Return how many slots of a slate explored."""
    return sum(item.explored for item in slate)


@pytest.mark.parametrize("guarded", [0, 2])
@pytest.mark.parametrize("scheme", ["sequential", "mixture", "softmax"])
def test_each_scheme_is_explained_and_logged(tmp_path, scheme, guarded):
    """Decisions of every scheme are replayed bit for bit; their events carry the scheme's
    parameters."""
    with opened(tmp_path, Exploration(scheme, 0.5, 20, 2.0, guarded)) as engine:
        slates = [engine.recommend("anna", k=5) for _ in range(20)]
        assert all(engine.explain(slate.decision).is_identical for slate in slates)
        assert any(explored(slate) for slate in slates)
        assert not any(item.explored for slate in slates for item in list(slate)[:guarded])
        decisions = [event for event in stored(engine) if isinstance(event, Decision)]
    assert {event.scheme for event in decisions} == {scheme}
    assert {event.guarded for event in decisions} == {guarded or UNSET}
    assert {event.temperature for event in decisions} == {2.0 if scheme == "softmax" else UNSET}
    for event, slate in zip(decisions, slates, strict=True):
        assert [slot.marginal for slot in event.slate] == [item.marginal for item in slate]


@pytest.mark.parametrize(
    ("id", "slots"), [("{}", 1000), ("\x01" * 508 + "{:04}", 61)], ids=["short", "longest"]
)
def test_the_largest_slates_fit_into_one_event(tmp_path, monkeypatch, id, slots):
    """A slate of 1,000 items fits into one event; with ids too long for that the slate is
    shorter."""
    monkeypatch.setattr(
        bundles, "record", lambda row: {"id": id.format(row), "title": "a red shoe"}
    )
    write_bundle(tmp_path / "bundle", items=1001, exploration=Exploration("softmax", 0.5, 1000))
    transport = FakeTransport()
    with Engine.open(
        tmp_path / "bundle", tmp_path / "state", transport=transport, background=False
    ) as engine:
        slate = engine.recommend("anna", k=1000, context="rainy sunday evening")
        assert len(slate) == slots
        assert engine.explain(slate.decision).is_identical
        assert engine.reward(slate, slate[-1], 1.0)
        assert engine.flush()
    ((decision, outcome),) = transport.batches
    assert [slot.item for slot in decision.slate] == [item.id for item in slate]
    assert outcome.decision == decision.id


@pytest.mark.parametrize("scheme", ["sequential", "mixture", "softmax"])
def test_the_kill_switch_stops_exploration_at_once(tmp_path, scheme):
    """While `exploring` is False slates are greedy with probability 1; True restores
    exploration."""
    with opened(tmp_path, Exploration(scheme, 1.0, 20)) as engine:
        engine.exploring = False
        for _ in range(20):
            slate = engine.recommend("anna", k=5)
            assert [item.rank for item in slate] == list(range(5))
            assert [(item.propensity, item.marginal) for item in slate] == [(1.0, 1.0)] * 5
        engine.exploring = True
        assert any(explored(engine.recommend("anna", k=5)) for _ in range(20))
        assert [event.epsilon for event in stored(engine)[:20]] == [0.0] * 20


def test_a_users_daily_budget_is_kept(tmp_path):
    """After the daily number of explored slots a user's slates are greedy until the next day."""
    clock = FakeClock()
    with opened(tmp_path, Exploration("sequential", 1.0, 20, daily=12), clock) as engine:
        assert [explored(engine.recommend("anna", k=5)) for _ in range(6)] == [5, 5, 5, 0, 0, 0]
        assert explored(engine.recommend("ben", k=5)) == 5
        clock.advance(DAY_MS / 1000)
        assert explored(engine.recommend("anna", k=5)) == 5


def test_the_daily_budget_survives_a_restart(tmp_path):
    """A restart does not start a new budget."""
    clock = FakeClock()
    with opened(tmp_path, Exploration("sequential", 1.0, 20, daily=5), clock) as engine:
        assert explored(engine.recommend("anna", k=5)) == 5
    with opened(tmp_path, None, clock) as engine:
        assert explored(engine.recommend("anna", k=5)) == 0
    with opened(tmp_path, None, clock, state="another device") as engine:
        assert explored(engine.recommend("anna", k=5)) == 5


def test_greedy_slates_use_no_budget(tmp_path):
    """Only explored slots count towards the daily budget."""
    with opened(tmp_path, Exploration("sequential", 1.0, 20, daily=5, guarded=4)) as engine:
        for _ in range(3):
            engine.recommend("anna", k=5, greedy=True)
        assert [explored(engine.recommend("anna", k=5)) for _ in range(6)] == [1, 1, 1, 1, 1, 0]
