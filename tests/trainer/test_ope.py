"""Off-policy estimators: against loops, against a world whose truth is known, and their refusals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling import explore
from sanderling_trainer.judge import ope
from tests.naive import joint, naive_estimates, slates

pytestmark = pytest.mark.lab

POOL, SLOTS = 6, 3
LOGGING, TARGET = 0.5, 0.3


def world(seed: int, n: int, order: list[int]):
    """Draw n slates of 3 of 6 items by ε-greedy over ranks; the target ranks the same items by `order`; item j is
    clicked with probability 0.8 - 0.12 j wherever it stands."""
    rng = np.random.default_rng(seed)
    ranks = np.array([explore.draw(SLOTS, POOL, LOGGING, rng.random((SLOTS, 2)).tolist()).ranks for _ in range(n)])
    clicks = (rng.random(ranks.shape) < 0.8 - 0.12 * ranks).astype(np.int64)
    logged = ope.sequential_propensities(ranks, SLOTS, POOL, LOGGING)
    target = ope.sequential_propensities(np.array(order)[ranks], SLOTS, POOL, TARGET)
    return ranks, clicks, logged, target


def truth(order: list[int]) -> float:
    """Return the target's click rate by enumerating all slates."""
    item_at = np.argsort(order)
    return sum(
        joint(slate, POOL, TARGET) * sum(0.8 - 0.12 * int(item_at[rank]) for rank in slate) / SLOTS
        for slate in slates(SLOTS, POOL)
    )


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [2, 0, 1, 5, 3, 4], [5, 4, 3, 2, 1, 0]])
def test_every_estimator_finds_the_truth(order):
    """Over 40 worlds the mean of each unclipped estimator is within 3 s.e. and 2 % of the enumerated truth."""
    found: dict[str, list[float]] = {}
    for seed in range(40):
        ranks, clicks, logged, target = world(seed, 400, order)
        judged = np.ones(ranks.shape, np.bool_)
        for one in ope.estimates(clicks, judged, np.arange(len(ranks)), logged, target, np.random.default_rng(0)):
            found.setdefault(one.estimator, []).append(one.value)
    for name, values in found.items():
        if not name.startswith(("clipped", "observed")):
            error = np.std(values, ddof=1) / math.sqrt(len(values))
            assert abs(np.mean(values) - truth(order)) <= 3 * error + 0.02 * truth(order), name


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.permutations(range(POOL)))
def test_estimators_equal_their_loops(seed, order):
    """SIPS, RIPS, IIPS and inclusion, plain and self-normalised, equal loops over decisions and slots."""
    ranks, clicks, logged, target = world(seed, 30, list(order))
    judged = np.random.default_rng(seed).random(ranks.shape) < 0.8
    judged[0, 0] = True
    fast = ope.estimates(clicks, judged, np.arange(30), logged, target, np.random.default_rng(0))
    slow = naive_estimates(clicks, judged, logged, target)
    values = {one.estimator: one.value for one in fast}
    for name, value in slow.items():
        assert values[name] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), name


def test_the_logging_policy_is_estimated_as_observed():
    """With the target equal to the logging policy all weights are 1 and every estimate is the observed rate."""
    ranks, clicks, logged, _ = world(1, 300, list(range(POOL)))
    judged = np.ones(ranks.shape, np.bool_)
    for one in ope.estimates(clicks, judged, np.arange(300), logged, logged, np.random.default_rng(0)):
        assert one.value == pytest.approx(clicks.mean())
        assert one.max_weight == pytest.approx(1.0)
        assert one.refused is None


def test_weights_average_one_over_the_support():
    """E_β[π / β] is 1 for the joint weight, enumerated over all slates."""
    every = np.array(list(itertools.permutations(range(POOL), SLOTS)))
    logged = ope.sequential_propensities(every, SLOTS, POOL, LOGGING)
    target = ope.sequential_propensities(np.array([3, 0, 4, 1, 5, 2])[every], SLOTS, POOL, TARGET)
    weight = ope.weights(logged, target)["SIPS"][:, 0]
    assert (logged.conditional.prod(axis=1) * weight).sum() == pytest.approx(1.0)


def test_propensities_from_ranks_equal_the_draws():
    """Conditional and marginal propensities rebuilt from ranks are those that the draw itself logged."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = explore.draw(SLOTS, POOL, LOGGING, rng.random((SLOTS, 2)).tolist())
        found = ope.sequential_propensities(np.array([drawn.ranks]), SLOTS, POOL, LOGGING)
        np.testing.assert_allclose(found.conditional[0], drawn.conditional)
        np.testing.assert_allclose(found.marginal[0], drawn.marginal)
        assert (found.inclusion[0] >= found.marginal[0] - 1e-12).all()


def test_items_outside_the_targets_pool_have_no_chance():
    """A shown item that the target ranks at or beyond its pool gets probability 0 of every kind."""
    found = ope.sequential_propensities(np.array([[0, 6, 9]]), 3, 6, 0.2)
    assert (
        found.conditional[0, 1:].tolist() == found.marginal[0, 1:].tolist() == found.inclusion[0, 1:].tolist() == [0, 0]
    )


def test_bad_weights_are_refused():
    """An estimate that rests on a handful of decisions says so instead of looking certain."""
    ranks, clicks, logged, target = world(3, 40, [5, 4, 3, 2, 1, 0])
    judged = np.ones(ranks.shape, np.bool_)
    found = ope.estimates(clicks, judged, np.arange(40), logged, target, np.random.default_rng(0))
    sips = next(one for one in found if one.estimator == "SIPS")
    assert sips.refused is not None


def test_rewards_that_are_no_clicks_are_refused():
    """Rewards of -1 raise ValueError: estimate clicks, then transform."""
    _, clicks, logged, target = world(3, 40, list(range(POOL)))
    with pytest.raises(ValueError, match="clicks"):
        ope.estimates(2 * clicks - 1, clicks >= 0, np.arange(40), logged, target, np.random.default_rng(0))
