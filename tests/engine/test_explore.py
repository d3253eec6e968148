"""Scheme `sequential` and its randomness: exact probabilities, and draws that follow them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.exploration import sequential
from sanderling.exploration.philox import philox, plain_uniforms, uniforms
from tests.support.naive import joint, slates

EPSILONS = [0.0, 0.05, 0.3, 1.0]
SHAPES = [(1, 1), (1, 4), (2, 3), (3, 3), (3, 6), (4, 5)]


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_returns_the_published_answers(counter, key, words):
    """The generator returns the known-answer vectors that its authors published."""
    assert philox(counter, key) == words


@given(st.integers(0, 2**128 - 1), st.integers(0, 40))
def test_compiled_uniforms_are_those_of_python(decision, blocks):
    """Whichever kernels are installed, a decision's uniforms are those of plain Python."""
    assert uniforms(f"{decision:032x}", blocks) == plain_uniforms(f"{decision:032x}", blocks)


def test_uniforms_are_uniform_and_differ_between_decisions():
    """Draws of many decisions fill [0, 1) evenly, and no two decisions share them."""
    draws = np.array([uniforms(f"{number:032x}", 10) for number in range(2000)]).reshape(2000, -1)
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    expected = draws.size / 20
    assert ((counts - expected) ** 2 / expected).sum() < 50.0
    assert len(np.unique(draws)) == draws.size
    assert draws.min() >= 0.0
    assert draws.max() < 1.0


@pytest.mark.parametrize(("slots", "pool"), SHAPES)
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_marginals_equal_enumeration(slots, pool, epsilon):
    """The dynamic programme's marginals are the sums of the joint probabilities of all slates."""
    exact = np.zeros((slots, pool))
    for slate in slates(slots, pool):
        for slot, rank in enumerate(slate):
            exact[slot, rank] += joint(slate, pool, epsilon)
    np.testing.assert_allclose(sequential.marginals(slots, pool, epsilon), exact, atol=1e-13)


@pytest.mark.parametrize(("slots", "pool"), SHAPES)
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_probabilities_of_all_slates_sum_to_one(slots, pool, epsilon):
    """The products of conditionals that `draw` logs are a distribution over slates."""
    assert math.isclose(
        sum(joint(slate, pool, epsilon) for slate in slates(slots, pool)), 1.0, abs_tol=1e-12
    )


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 30), st.integers(0, 40), st.floats(0, 1))
def test_marginals_sum_to_one_a_slot_and_inclusions_to_the_slots(slots, more, epsilon):
    """A slot's marginals sum to 1, an item's sum to at most 1, and all of them to the slots."""
    table = sequential.marginals(slots, slots + more, epsilon)
    np.testing.assert_allclose(table.sum(axis=1), 1.0, atol=1e-11)
    assert table.min() >= -1e-15
    assert table.sum(axis=0).max() <= 1.0 + 1e-11
    assert math.isclose(table.sum(), slots, abs_tol=1e-9)


@pytest.mark.parametrize(("slots", "pool"), [(2, 4), (3, 5)])
def test_inverse_propensity_counts_the_support(slots, pool):
    """E[1 / β] is the number of slates, and E[π / β] is 1 for any policy π on them."""
    epsilon, target = 0.2, 0.7
    every = list(slates(slots, pool))
    support = sum(joint(slate, pool, epsilon) / joint(slate, pool, epsilon) for slate in every)
    assert math.isclose(support, math.perm(pool, slots))
    logged = [joint(slate, pool, epsilon) for slate in every]
    weights = [joint(slate, pool, target) / joint(slate, pool, epsilon) for slate in every]
    mean = sum(p * weight for p, weight in zip(logged, weights, strict=True))
    assert math.isclose(mean, 1.0, abs_tol=1e-12)


def test_draws_have_the_logged_probabilities():
    """The slates of many decisions occur as often as their logged propensities say (chi-square)."""
    slots, pool, epsilon, n = 2, 4, 0.4, 40_000
    counts = dict.fromkeys(slates(slots, pool), 0)
    for number in range(n):
        noise = uniforms(f"{number * 7919 + 1:032x}", slots)
        drawn = sequential.draw(slots, pool, epsilon, noise)
        counts[tuple(drawn.ranks)] += 1
        assert math.isclose(
            math.prod(drawn.conditional), joint(tuple(drawn.ranks), pool, epsilon), rel_tol=1e-12
        )
    chi = sum(
        (count - n * joint(s, pool, epsilon)) ** 2 / (n * joint(s, pool, epsilon))
        for s, count in counts.items()
    )
    assert chi < 35.0  # 11 degrees of freedom: p > 2e-4


def test_without_exploring_the_slate_is_greedy():
    """Epsilon 0 shows the best items in order, with certainty."""
    drawn = sequential.draw(4, 9, 0.0, uniforms("0" * 32, 4))
    assert drawn.ranks == [0, 1, 2, 3]
    assert drawn.conditional == drawn.marginal == [1.0] * 4
    assert not any(drawn.explored)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 12), st.integers(0, 12), st.floats(0, 1), st.integers(0, 2**128 - 1))
def test_a_draw_is_a_slate_with_positive_probabilities(slots, more, epsilon, decision):
    """No rank is drawn twice, and each has a positive conditional and marginal probability."""
    pool = slots + more
    drawn = sequential.draw(slots, pool, epsilon, uniforms(f"{decision:032x}", slots))
    assert len(set(drawn.ranks)) == slots
    assert set(drawn.ranks) <= set(range(pool))
    assert all(0.0 < p <= 1.0 + 1e-12 for p in itertools.chain(drawn.conditional, drawn.marginal))


@pytest.mark.parametrize(
    ("slots", "pool", "epsilon"), [(3, 2, 0.1), (-1, 2, 0.1), (1, 2, 1.5), (1, 2, math.nan)]
)
def test_impossible_arguments_are_refused(slots, pool, epsilon):
    """More slots than items, or an epsilon outside [0, 1], raise ValueError."""
    with pytest.raises(ValueError, match="expected"):
        sequential.draw(slots, pool, epsilon, uniforms("0" * 32, 4))
