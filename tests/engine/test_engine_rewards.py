"""The engine's rewards: what is stored, what updates the state, and what is rejected."""

from __future__ import annotations

import math

import pytest

from sanderling import Engine, Receipt
from sanderling.events.schema import Decision, Observation, Outcome
from tests.support.engines import stored


def test_a_click_updates_the_state_and_a_skip_does_not(engine):
    """A positive reward updates the user's state unless the app passes `observe=False`."""
    slate = engine.recommend("anna")
    engine.reward(slate, slate[0], -1.0)
    assert engine.reward(slate, slate[1], 1.0, observe=False) == Receipt(True)
    engine.recommend("anna")
    assert [e for e in stored(engine) if isinstance(e, Decision)][-1].state_events == 0
    engine.reward(slate, slate[1], 1.0)
    engine.recommend("anna")
    events = stored(engine)
    assert [e for e in events if isinstance(e, Decision)][-1].state_events == 1
    assert [(e.kind, e.value, e.updates_state) for e in events if isinstance(e, Outcome)] == [
        ("skip", -1.0, False),
        ("click", 1.0, False),
        ("click", 1.0, True),
    ]


def test_rewards_name_their_decision_and_slot(engine):
    """Each outcome carries the decision's id and the slot of the item; decisions come before their
    outcomes."""
    slate = engine.recommend("anna", k=3)
    engine.reward_all(slate, {slate[0]: -1.0, slate[2].id: 1.0})
    events = stored(engine)
    outcomes = [event for event in events if isinstance(event, Outcome)]
    assert [(o.decision, o.slot, o.value) for o in outcomes] == [
        (slate.decision, 0, -1.0),
        (slate.decision, 2, 1.0),
    ]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[0], Decision)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.01, 2])
def test_rewards_out_of_range_are_refused(engine, value):
    """A reward outside [-1, 1] raises ValueError and stores nothing."""
    slate = engine.recommend("anna")
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        engine.reward(slate, slate[0], value)
    assert not [event for event in stored(engine) if isinstance(event, Outcome)]


@pytest.mark.parametrize("value", [True, "1", None])
def test_rewards_of_a_wrong_type_are_refused(engine, value):
    """A bool, a string or None is no reward."""
    slate = engine.recommend("anna")
    with pytest.raises(TypeError, match="expected a number"):
        engine.reward(slate, slate[0], value)


def test_rewarding_an_item_that_was_not_shown_is_refused(engine):
    """Only items of the slate can be rewarded."""
    with pytest.raises(ValueError, match="slate"):
        engine.reward(engine.recommend("anna"), "unknown", 1.0)


def test_a_slate_of_another_install_is_not_rewarded(engine, bundle, tmp_path):
    """A reward for a slate of another device is refused with a reason, even for the same user
    name."""
    with Engine.open(bundle, tmp_path / "other") as other:
        slate = other.recommend("anna")
    receipt = engine.reward(slate, slate[0], 1.0)
    assert not receipt
    assert "not stored" in receipt.reason
    assert stored(engine) == []


@pytest.mark.parametrize(
    "number", [10**400, -(10**5000), float("nan"), float("inf"), 1.5], ids="abcde"
)
def test_a_reward_of_any_size_is_named_in_its_error(engine, number):
    """A reward out of range is a ValueError that names it, however many digits it has."""
    slate = engine.recommend("anna")
    with pytest.raises(ValueError, match="value: expected a number"):
        engine.reward(slate, slate[0], number)


def test_without_a_state_folder_nothing_is_stored_and_rewards_say_so(bundle):
    """Without a state folder the engine recommends from memory and refuses rewards with a
    reason."""
    with Engine.open(bundle) as engine:
        engine.observe("anna", "item-1")
        slate = engine.recommend("anna")
        receipt = engine.reward(slate, slate[0], 1.0)
        assert not receipt
        assert "without a state folder" in receipt.reason


def test_recommending_goes_on_when_the_state_folder_cannot_be_opened(bundle, tmp_path):
    """With a state folder that is a file only rewards fail."""
    (tmp_path / "state").write_text("not a folder")
    with Engine.open(bundle, tmp_path / "state") as engine:
        slate = engine.recommend("anna")
        assert len(slate) == 10
        receipt = engine.reward(slate, slate[0], 1.0)
        assert not receipt.stored
        assert "not stored" in receipt.reason


@pytest.mark.parametrize("name", ["\ud800", "item-\udfff", "", "x" * 513])
def test_text_that_no_event_can_hold_is_rejected(engine, name):
    """An item id or kind that no event can hold raises ValueError and changes nothing."""
    slate = engine.recommend("anna")
    with pytest.raises(ValueError, match="item: expected"):
        engine.observe("anna", name)
    with pytest.raises(ValueError, match="kind: expected"):
        engine.observe("anna", "item-1", name)
    with pytest.raises(ValueError, match="kind: expected"):
        engine.reward(slate, slate[0], 1.0, name)
    engine.observe("anna", "item-1")
    assert engine.reward(slate, slate[0], 1.0)
    assert [type(event) for event in stored(engine)] == [Decision, Observation, Outcome]
