"""Devices' events become training examples; decisions that cannot be used are counted."""

from __future__ import annotations

from functools import reduce

import msgspec
import numpy as np
import pytest

from sanderling import Engine
from sanderling.bundle.manifest import Exploration
from sanderling.events import schema as wire
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling_trainer.event_log.examples import examples_of
from sanderling_trainer.event_log.reader import EventLog
from tests.support.bundles import KINDS, TEXT, write_bundle
from tests.support.engines import stored

pytestmark = pytest.mark.lab

IDS = [f"item-{row}" for row in range(50)]


@pytest.fixture
def events(tmp_path):
    """The events of an engine: three observations, and three decisions, two with outcomes."""
    write_bundle(tmp_path / "bundle")
    with Engine.open(tmp_path / "bundle", tmp_path / "state", share_context=True) as engine:
        for number in range(3):
            slate = engine.recommend("anna", k=4, context="rainy evening")
            if number < 2:
                engine.reward_all(
                    slate, {slate[0]: -1.0, slate[1]: 1.0}, observe=None if number else False
                )
            engine.observe("anna", f"item-{number}", "purchase")
        return stored(engine)


def log_of(events) -> EventLog:
    return EventLog(events={(events[0].install, events[0].user): list(events)})


def test_decisions_are_joined_with_outcomes_and_states(events):
    """Slots without an outcome are not judged, -1 is seen and not clicked, and propensities are the
    logged ones.
    """
    found = examples_of(log_of(events), IDS, KINDS, TEXT)
    decisions = [event for event in events if isinstance(event, wire.Decision)]
    assert dict(found.dropped) == {"no outcome": 1}
    assert found.decisions.reward.tolist() == [[-1.0, 1.0, 0.0, 0.0]] * 2
    assert found.decisions.judged.tolist() == [[True, True, False, False]] * 2
    assert found.decisions.position.tolist() == [0, 1]
    np.testing.assert_array_equal(
        found.decisions.marginal, [[s.marginal for s in d.slate] for d in decisions[:2]]
    )
    clicked = IDS.index(decisions[1].slate[1].item)
    assert found.histories[0].items.tolist() == [0, clicked, 1, 2]
    assert found.histories[0].is_response.tolist() == [False, True, False, False]
    assert found.decisions.seq.tolist() == [decision.seq for decision in decisions[:2]]
    assert (np.diff(found.histories[0].seqs) > 0).all()
    assert found.contexts.shape == (1, TEXT)


def test_slots_of_newcomers_keep_their_logged_propensities(tmp_path):
    """Slots that the quota filled are marked, with the propensities and the quota as logged."""
    plan = Exploration(epsilon=1.0, pool=10, newcomers=0.5)
    write_bundle(tmp_path / "bundle", exploration=plan, newcomers=range(20, 50))
    with Engine.open(tmp_path / "bundle", tmp_path / "state") as engine:
        slates = [engine.recommend("anna", k=4) for _ in range(12)]
        for slate in slates:
            engine.reward_all(slate, dict.fromkeys(slate, -1.0), observe=False)
        found = examples_of(log_of(stored(engine)), IDS, KINDS, TEXT)
    decisions = found.decisions
    assert not found.dropped
    assert decisions.newcomer.any()
    assert decisions.newcomer.tolist() == [[item.newcomer for item in slate] for slate in slates]
    assert decisions.marginal.tolist() == [[item.marginal for item in slate] for slate in slates]
    assert set(decisions.newcomer_rate) == {0.5}
    assert 20 < min(decisions.newcomers) <= 30
    assert decisions.take(np.arange(3)).truncate(2).newcomer.shape == (3, 2)


def test_a_lost_observation_drops_the_decisions_after_it(events):
    """If an event before a decision is missing the checksum differs: the decision is dropped."""
    first = next(event for event in events if isinstance(event, wire.Observation))
    found = examples_of(log_of([event for event in events if event is not first]), IDS, KINDS, TEXT)
    assert found.dropped["state checksum differs"] == 2
    assert len(found.decisions) == 1


def test_decisions_after_a_state_reset_are_used(events):
    """After a reset decisions are used again, on another history, whose first steps are marked as
    replayed.
    """
    first, second, _ = (event for event in events if isinstance(event, wire.Observation))
    click = next(
        event for event in events if isinstance(event, wire.Outcome) and event.updates_state
    )
    steps = [(event.item, event.kind) for event in (second, first, click)]
    check = reduce(lambda check, step: next_checksum(check, *step), steps, NO_EVENTS)
    reset = wire.StateReset("e" * 32, first.install, first.seq, first.user, first.clock, steps)
    changed = [
        msgspec.structs.replace(event, state_checksum=check, state_events=3)
        if isinstance(event, wire.Decision)
        else event
        for event in events
    ]
    place = changed.index(first)
    log = log_of([*changed[:place], reset, *changed[place + 1 :]])
    found = examples_of(log, IDS, KINDS, TEXT)
    assert dict(found.dropped) == {"state checksum differs": 1, "no outcome": 1}
    assert (found.decisions.history.tolist(), found.decisions.position.tolist()) == ([1], [3])
    assert found.decisions.group.tolist() == [0]
    assert [history.n_replayed for history in found.histories] == [0, 3]
    assert found.histories[1].items.tolist()[:3] == [IDS.index(item) for item, _ in steps]
    assert (
        len(found.histories[1])
        == 3
        + sum(len(history) for history in examples_of(log_of(events), IDS, KINDS, TEXT).histories)
        - 1
    )


def test_items_outside_the_catalog_are_left_out(events):
    """An item that the catalog lacks is left out of the history, and its slot is not judged."""
    decisions = [event for event in events if isinstance(event, wire.Decision)]
    gone = {decisions[0].slate[1].item, "item-0"}
    ids = [item for item in IDS if item not in gone]
    found = examples_of(log_of(events), ids, KINDS, TEXT)
    assert not found.decisions.judged[0, 1]
    assert found.decisions.items[0, 1] == -1
    assert found.decisions.position.tolist() == [0, 0]


def test_a_context_of_another_width_is_left_out(events):
    """A context vector of another width is counted and not used."""
    other = [
        msgspec.structs.replace(e, context="AAAAAA==") if isinstance(e, wire.Decision) else e
        for e in events
    ]
    found = examples_of(log_of(other), IDS, KINDS, TEXT)
    assert (found.decisions.context == -1).all()
    assert found.dropped["context of another width"] == 2


def test_how_a_decision_was_drawn_is_recorded(events):
    """Guarded slots and caps are recorded; without marginals conditional propensities stand in."""
    changes = {"guarded": 2, "caps": {"price": 1}}
    drawn = [
        msgspec.structs.replace(
            event,
            slate=[msgspec.structs.replace(slot, marginal=None) for slot in event.slate],
            **changes,
        )
        if isinstance(event, wire.Decision)
        else event
        for event in events
    ]
    found, plain = (
        examples_of(log_of(each), IDS, KINDS, TEXT).decisions for each in (drawn, events)
    )
    assert found.guarded.tolist() == [2, 2]
    assert found.capped.all()
    assert (found.epsilons()[:, :2] == 0.0).all()
    assert (found.epsilons()[:, 2:] == 0.1).all()
    np.testing.assert_array_equal(found.marginal, plain.conditional)
    assert not plain.guarded.any()
    assert not plain.capped.any()


def test_flipped_rewards_are_unbiased(events):
    """A reward of ±1 that was flipped with probability p becomes value / (1 - 2p), and its decision
    is marked.
    """
    noisy = [
        msgspec.structs.replace(e, flip_probability=0.25) if isinstance(e, wire.Outcome) else e
        for e in events
    ]
    found, plain = (
        examples_of(log_of(each), IDS, KINDS, TEXT).decisions for each in (noisy, events)
    )
    np.testing.assert_allclose(found.reward, 2.0 * plain.reward)
    assert found.noisy.all()
    assert not plain.noisy.any()
