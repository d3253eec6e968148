"""Propensities and importance weights against enumeration and the engine's own draws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from bench.estimation.loops import joint, slates
from bench.estimation.slate_simulator import (
    LOGGING,
    ORDER,
    POOL,
    SLOTS,
    TARGET,
)
from sanderling.bundle.manifest import Exploration
from sanderling.exploration import schemes, sequential
from sanderling_trainer.evaluation import ope

pytestmark = pytest.mark.lab


def test_weights_average_one_over_the_support():
    """E_β[π / β] is 1 for the joint weight, enumerated over all slates."""
    every = np.array(list(itertools.permutations(range(POOL), SLOTS)))
    logged = ope.sequential_propensities(every, SLOTS, POOL, LOGGING)
    target = ope.sequential_propensities(ORDER[every], SLOTS, POOL, TARGET)
    weight = ope.importance_weights(logged, target)["SIPS"][:, 0]
    assert (logged.conditional.prod(axis=1) * weight).sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("pool", "own_pool", "epsilon", "own"), [(6, 6, 0.7, 0.5), (6, 5, 0.3, 0.0), (5, 6, 1.0, 0.2)]
)
def test_no_weight_exceeds_the_bound(pool, own_pool, epsilon, own):
    """Over every slate and many orders of the target, no weight exceeds `max_weights`."""
    every = np.array(list(slates(SLOTS, pool)))
    bounds = ope.max_weights(SLOTS, (pool, epsilon), (own_pool, own))
    logged = ope.sequential_propensities(every, SLOTS, pool, epsilon)
    seen = dict.fromkeys(bounds, 0.0)
    for order in itertools.islice(itertools.permutations(range(POOL)), 0, None, 7):
        target = ope.sequential_propensities(np.array(order)[every], SLOTS, own_pool, own)
        for name, weight in ope.importance_weights(logged, target).items():
            seen[name] = max(seen[name], float(weight.max()))
    for name in bounds:
        assert seen[name] <= bounds[name] * (1 + 1e-9)
    assert seen["IIPS"] > 0.5 * bounds["IIPS"]
    assert np.isinf(ope.max_weights(SLOTS, (pool, 0.0), (pool, own or 0.1))["RIPS"])


def test_unsupported_mass_is_the_share_of_slots_that_the_log_never_shows():
    """It equals the enumerated mass, and is 0 when both pools hold the same items."""
    items, known = np.array([[4, 2, 7, 1], [0, 1, 2, 3]]), np.array([[2, 4, 1, 9], [3, 2, 1, 0]])
    found = ope.unsupported_mass(items, known, SLOTS, np.array([4, 4]), TARGET)
    wanted = sum(joint(one, 4, TARGET) * (2 in one) for one in slates(SLOTS, 4)) / SLOTS
    assert found.tolist() == pytest.approx([wanted, 0.0])


def test_propensities_from_ranks_equal_the_logged_ones():
    """Conditional and marginal propensities rebuilt from ranks equal those that the draw logged."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = sequential.draw(SLOTS, POOL, LOGGING, rng.random((SLOTS, 2)).tolist())
        found = ope.sequential_propensities(np.array([drawn.ranks]), SLOTS, POOL, LOGGING)
        np.testing.assert_allclose(found.conditional[0], drawn.conditional)
        np.testing.assert_allclose(found.marginal[0], drawn.marginal)
        assert (found.inclusion[0] >= found.marginal[0] - 1e-12).all()


def test_propensities_with_guarded_slots_equal_the_logged_ones():
    """The same holds with leading slots that never explore."""
    rng, guarded = np.random.default_rng(0), Exploration(epsilon=LOGGING, guarded=1)
    epsilons = np.array([[0.0] + [LOGGING] * (SLOTS - 1)])
    for _ in range(50):
        drawn = schemes.draw(guarded, SLOTS, np.zeros(POOL), rng.random((SLOTS, 2)).tolist())
        found = ope.sequential_propensities(np.array([drawn.ranks]), SLOTS, POOL, epsilons)
        np.testing.assert_allclose(found.conditional[0], drawn.conditional)
        np.testing.assert_allclose(found.marginal[0], list(drawn.marginal))


def test_items_outside_the_targets_pool_have_probability_zero():
    """An item that the target ranks at or beyond its pool has propensities of 0."""
    found = ope.sequential_propensities(np.array([[0, 6, 9]]), 3, 6, 0.2)
    for kind in found:
        assert kind[0, 0] > 0
        assert kind[0, 1:].tolist() == [0, 0]


def test_marginals_and_inclusions_equal_enumeration():
    """They are the joint probability summed over slates with the item there, or anywhere."""
    shown = np.array([[0, 1, 2], [5, 4, 3]])
    found = ope.sequential_propensities(ORDER[shown], SLOTS, POOL, TARGET)
    for place, slot in itertools.product(range(2), range(SLOTS)):
        rank = int(ORDER[shown[place, slot]])
        here = sum(joint(one, POOL, TARGET) for one in slates(SLOTS, POOL) if one[slot] == rank)
        anywhere = sum(joint(one, POOL, TARGET) for one in slates(SLOTS, POOL) if rank in one)
        assert found.marginal[place, slot] == pytest.approx(here)
        assert found.inclusion[place, slot] == pytest.approx(anywhere)


def test_each_decision_may_have_its_own_pool_and_epsilon():
    """Propensities with a pool and an ε per decision equal those of each decision alone."""
    ranks, pools, epsilons = (
        np.array([[0, 1, 2], [4, 0, 1], [1, 5, 0]]),
        np.array([3, 5, 6]),
        np.array([0.5, 0.1, 0.5]),
    )
    together = ope.sequential_propensities(ranks, SLOTS, pools, epsilons)
    for at in range(3):
        alone = ope.sequential_propensities(
            ranks[at : at + 1], SLOTS, int(pools[at]), float(epsilons[at])
        )
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one[at], other[0])
