"""Randomised response: flipped as often as it says, the same for each slot for ever, and right on average."""

from __future__ import annotations

import math

import pytest
from msgspec import UNSET

from sanderling import Engine
from sanderling.events.schema import Outcome
from sanderling.users import randomized_response
from tests.support.bundles import write_bundle
from tests.support.engines import stored
from tests.support.fakes import FakeClock, FakeEntropy


def opened(tmp_path, **settings):
    """Open an engine on a bundle of this test."""
    if not (tmp_path / "bundle").exists():
        write_bundle(tmp_path / "bundle")
    return Engine.open(
        tmp_path / "bundle",
        tmp_path / "state",
        clock=FakeClock(),
        entropy=FakeEntropy(),
        **settings,
    )


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
@pytest.mark.parametrize("value", [1.0, -1.0, 0.2, -0.3])
def test_bits_are_turned_as_often_as_said_and_right_on_average(epsilon, value):
    """Over many slots the share flipped is p within 4 standard errors, and the corrected mean is the truth."""
    n, p = 20_000, randomized_response.chance(epsilon)
    told = [
        randomized_response.told(value, b"secret", f"{at:032x}", at % 10, epsilon)
        for at in range(n)
    ]
    truth = 1.0 if value > 0 else -1.0
    flipped = sum(one != truth for one in told) / n
    assert abs(flipped - p) < 4.0 * math.sqrt(p * (1.0 - p) / n)
    assert abs(sum(told) / n / (1.0 - 2.0 * p) - truth) < 8.0 * math.sqrt(p * (1.0 - p) / n) / (
        1.0 - 2.0 * p
    )
    assert math.isclose((1.0 - p) / p, math.exp(epsilon))


def test_asking_again_tells_nothing_more(tmp_path):
    """A slot's answer never changes, so that averaging repeated rewards does not reveal it; other devices differ."""
    with opened(tmp_path, privacy=0.5) as engine:
        slate = engine.recommend("anna", k=10)
        for _ in range(5):
            engine.reward_all(slate, dict.fromkeys(slate, 1.0))
        outcomes = [event for event in stored(engine) if isinstance(event, Outcome)]
    values = {slot: {event.value for event in outcomes if event.slot == slot} for slot in range(10)}
    assert all(len(found) == 1 for found in values.values())
    assert {next(iter(found)) for found in values.values()} == {1.0, -1.0}
    assert randomized_response.told(1.0, b"a", "0" * 32, 3, 0.1) in (1.0, -1.0)
    assert (
        len(
            {
                randomized_response.told(1.0, bytes([device]), "0" * 32, 3, 0.5)
                for device in range(20)
            }
        )
        == 2
    )


def test_nothing_beside_the_bit_tells_what_happened(tmp_path):
    """With noise on, the kind follows the told value, the app's own kind stays here, and no state moves by a click."""
    with opened(tmp_path, privacy=0.5) as engine:
        slate = engine.recommend("anna", k=10)
        engine.reward_all(slate, dict.fromkeys(slate, 0.7), kind="bought for 79.90", observe=True)
        outcomes = [event for event in stored(engine) if isinstance(event, Outcome)]
        later = engine.recommend("anna")
        (decision,) = [event for event in stored(engine) if event.id == later.decision]
    assert {(event.kind, event.value) for event in outcomes} == {("click", 1.0), ("skip", -1.0)}
    assert not any(event.updates_state for event in outcomes)
    assert {event.flip_probability for event in outcomes} == {randomized_response.chance(0.5)}
    assert decision.state_events == 0


def test_without_privacy_rewards_are_told_as_they_are(tmp_path):
    """By default values are exact and carry no mark."""
    with opened(tmp_path) as engine:
        slate = engine.recommend("anna", k=5)
        engine.reward_all(slate, dict.fromkeys(slate, 0.7), kind="rated")
        outcomes = [event for event in stored(engine) if isinstance(event, Outcome)]
    assert {(event.value, event.kind, event.flip_probability) for event in outcomes} == {
        (0.7, "rated", UNSET)
    }


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, True, "2", 21])
def test_an_epsilon_that_makes_no_sense_is_refused(tmp_path, epsilon):
    """Opening with an impossible privacy raises ValueError that names it."""
    with pytest.raises(ValueError, match="privacy: expected an epsilon"):
        opened(tmp_path, privacy=epsilon)


@pytest.mark.parametrize("other", [{"adapt": True}, {"window_s": 60.0}])
def test_what_would_tell_beside_the_bit_is_refused(tmp_path, other):
    """Learning here and windows show by later slates or by times what was clicked: not together with noise."""
    with pytest.raises(ValueError, match="would tell"):
        opened(tmp_path, privacy=1.0, **other)
