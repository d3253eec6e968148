"""Randomized response: flips with its probability, always the same for a slot, unbiased."""

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
def test_bits_are_flipped_with_their_probability_and_corrected_without_bias(epsilon, value):
    """Over many slots the flipped share is p and the corrected mean the true value, within 4 σ."""
    n, p = 20_000, randomized_response.flip_probability(epsilon)
    uploaded = [
        randomized_response.flip(value, b"secret", f"{number:032x}", number % 10, epsilon)
        for number in range(n)
    ]
    truth = 1.0 if value > 0 else -1.0
    flipped = sum(value != truth for value in uploaded) / n
    assert abs(flipped - p) < 4.0 * math.sqrt(p * (1.0 - p) / n)
    assert abs(sum(uploaded) / n / (1.0 - 2.0 * p) - truth) < 8.0 * math.sqrt(p * (1.0 - p) / n) / (
        1.0 - 2.0 * p
    )
    assert math.isclose((1.0 - p) / p, math.exp(epsilon))


def test_repeated_rewards_reveal_nothing_more(tmp_path):
    """A slot's flip never changes, so averaging repeated rewards does not reveal it; devices
    differ."""
    with opened(tmp_path, privacy=0.5) as engine:
        slate = engine.recommend("anna", k=10)
        for _ in range(5):
            engine.reward_all(slate, dict.fromkeys(slate, 1.0))
        outcomes = [event for event in stored(engine) if isinstance(event, Outcome)]
    values = {slot: {event.value for event in outcomes if event.slot == slot} for slot in range(10)}
    assert all(len(answers) == 1 for answers in values.values())
    assert {next(iter(answers)) for answers in values.values()} == {1.0, -1.0}
    assert randomized_response.flip(1.0, b"a", "0" * 32, 3, 0.1) in (1.0, -1.0)
    assert (
        len(
            {
                randomized_response.flip(1.0, bytes([device]), "0" * 32, 3, 0.5)
                for device in range(20)
            }
        )
        == 2
    )


def test_no_other_field_reveals_the_reward(tmp_path):
    """The kind follows the flipped value, the app's own kind is not sent, and no state is
    updated."""
    with opened(tmp_path, privacy=0.5) as engine:
        slate = engine.recommend("anna", k=10)
        engine.reward_all(slate, dict.fromkeys(slate, 0.7), kind="bought for 79.90", observe=True)
        outcomes = [event for event in stored(engine) if isinstance(event, Outcome)]
        later = engine.recommend("anna")
        (decision,) = [event for event in stored(engine) if event.id == later.decision]
    assert {(event.kind, event.value) for event in outcomes} == {("click", 1.0), ("skip", -1.0)}
    assert not any(event.updates_state for event in outcomes)
    assert {event.flip_probability for event in outcomes} == {
        randomized_response.flip_probability(0.5)
    }
    assert decision.state_events == 0


def test_without_privacy_rewards_are_exact(tmp_path):
    """By default values are exact and there is no `flip_probability`."""
    with opened(tmp_path) as engine:
        slate = engine.recommend("anna", k=5)
        engine.reward_all(slate, dict.fromkeys(slate, 0.7), kind="rated")
        outcomes = [event for event in stored(engine) if isinstance(event, Outcome)]
    assert {(event.value, event.kind, event.flip_probability) for event in outcomes} == {
        (0.7, "rated", UNSET)
    }


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, 21])
def test_an_impossible_epsilon_is_rejected(tmp_path, epsilon):
    """Opening with an impossible privacy raises ValueError that names it."""
    with pytest.raises(ValueError, match="privacy: expected an epsilon"):
        opened(tmp_path, privacy=epsilon)


@pytest.mark.parametrize("other", [{"adapt": True}, {"window_s": 60.0}])
def test_privacy_excludes_adapt_and_windows(tmp_path, other):
    """Later slates, or the times of default outcomes, would reveal the rewards, so both are
    rejected."""
    with pytest.raises(ValueError, match="would reveal"):
        opened(tmp_path, privacy=1.0, **other)
