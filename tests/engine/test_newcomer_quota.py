"""The quota for newcomers: draws of every scheme follow the logged probabilities exactly."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.bundle.manifest import Exploration
from sanderling.exploration import mixture, newcomers, schemes, sequential
from sanderling.exploration.philox import uniforms
from tests.support.naive import probability, slates

SCORES = np.array([1.5, 1.1, 1.1, 0.2])
PLANS = [
    Exploration("sequential", 0.4, newcomers=0.5),
    Exploration("mixture", 0.4, newcomers=0.5),
    Exploration("softmax", 0.4, temperature=0.7, newcomers=0.5),
]
FRACTIONS = st.sampled_from([0.0, 0.05, 0.4, 0.9, 1.0])


def drawn(plan, slots, scores, count, decision):
    """Return a slate drawn with the randomness of a decision's id."""
    blocks = schemes.n_uniforms(plan, slots, len(scores), count)
    return schemes.draw(plan, slots, scores, uniforms(f"{decision:032x}", blocks), count)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("guarded", [0, 1])
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.scheme)
def test_draws_have_the_logged_probabilities(plan, guarded, count):
    """Slates occur as often as defined (chi-square), with newcomers used up or not."""
    n = 12_000
    plan = msgspec.structs.replace(plan, guarded=guarded)
    counts = Counter(
        tuple(drawn(plan, 3, SCORES, count, number * 7919 + 1).ranks) for number in range(n)
    )
    every = slates(3, len(SCORES) + count)
    expected = {slate: n * probability(plan, slate, SCORES, count) for slate in every}
    assert math.isclose(sum(expected.values()), n)
    assert all(expected[slate] > 0.0 for slate in counts)

    # Rare slates count together, since chi-square needs some expected ones in each cell.
    common = [slate for slate, due in expected.items() if due >= 5.0]
    rare = n - sum(expected[slate] for slate in common)
    cells = [(counts[slate], expected[slate]) for slate in common]
    cells.append((n - sum(counts[slate] for slate in common), rare))
    chi = sum((seen - due) ** 2 / due for seen, due in cells if due > 1e-6)
    freedom = len(cells) - 1
    assert chi < freedom + 4.5 * math.sqrt(2 * freedom) + 8.0


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["sequential", "mixture", "softmax"]),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(1, 3),
    st.integers(0, 4),
    FRACTIONS,
    FRACTIONS,
    st.integers(0, 2**64),
)
def test_probabilities_equal_enumeration(
    scheme, slots, more, count, guarded, epsilon, share, decision
):
    """Over all slates: conditionals multiply to the joint probability, marginals are sums of it,
    slots sum to 1, and the inclusions of all items to the slots."""
    plan = Exploration(scheme, epsilon, guarded=guarded, newcomers=share, temperature=0.7)
    scores = np.array([1.5, 1.1, 1.1, 0.2, 0.0])[: slots + more]
    exact = np.zeros((slots, len(scores) + count))
    for slate in slates(slots, len(scores) + count):
        exact[range(slots), slate] += probability(plan, slate, scores, count)
    np.testing.assert_allclose(exact.sum(axis=1), 1.0, rtol=1e-12)
    assert math.isclose(exact.sum(axis=0).sum(), slots, rel_tol=1e-12)

    for number in range(20):
        slate = drawn(plan, slots, scores, count, decision + number)
        joint_probability = probability(plan, tuple(slate.ranks), scores, count)
        assert math.isclose(math.prod(slate.conditional), joint_probability, rel_tol=1e-9)
        if scheme == "softmax":
            # A slate of guarded slots alone is certain under every scheme.
            assert set(slate.marginal) == ({None} if guarded < slots else {1.0})
        else:
            np.testing.assert_allclose(
                slate.marginal, exact[range(slots), slate.ranks], rtol=1e-9, atol=1e-15
            )


@pytest.mark.parametrize("by_rank", [sequential.marginals_by_rank, mixture.marginals_by_rank])
@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(0, 40), st.integers(1, 40), st.floats(0, 1), st.floats(0, 1))
def test_marginals_of_long_slates_sum_to_one(by_rank, slots, more, count, epsilon, eta):
    """A slot's marginals over the pool and all newcomers sum to 1, in slates of any length."""
    table = newcomers.mix(by_rank(slots, slots + more, epsilon), eta, min(count, slots))
    rows = np.array(table.by_rank)
    total = rows[:, :slots].sum(axis=1) + more * rows[:, slots] + np.array(table.newcomer)
    np.testing.assert_allclose(total, 1.0, atol=1e-11)
    assert 0.0 <= rows.min() <= rows.max() <= 1.0
    assert sum(table.newcomer) <= count + 1e-9


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.scheme)
def test_slates_without_newcomers_are_as_before(plan):
    """Without newcomers, or a quota of 0, a decision draws the bits that it drew without quota."""
    without = msgspec.structs.replace(plan, newcomers=0.0)
    for number in range(50):
        expected = drawn(without, 3, SCORES, 0, number)
        assert drawn(plan, 3, SCORES, 0, number) == expected
        assert drawn(without, 3, SCORES, 5, number) == expected
        assert drawn(schemes.greedy(plan), 3, SCORES, 5, number).ranks == [0, 1, 2]


@pytest.mark.parametrize("plan", PLANS[:2], ids=lambda plan: plan.scheme)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_quota_does_not_change_how_much_explores(plan, share):
    """The share of slots that explore stays ε, of which newcomers have their share."""
    plan = msgspec.structs.replace(plan, newcomers=share)
    made = [drawn(plan, 4, np.zeros(20), 50, number) for number in range(4000)]
    explored = np.mean([each.explored for each in made])
    shown = np.mean([[rank >= 20 for rank in each.ranks] for each in made])
    assert abs(explored - plan.epsilon) < 0.03
    assert abs(shown - plan.epsilon * share) < 0.015


def test_all_orders_of_newcomers_are_equally_likely():
    """With a rate of 1 the first slots show the newcomers in a uniform order, then none is left."""
    orders = Counter()
    for number in range(6000):
        chosen = newcomers.choose(1.0, 5, 3, uniforms(f"{number:032x}", 5))
        assert chosen[3:] == [None, None]
        orders[tuple(chosen[:3])] += 1
    assert set(orders) == set(itertools.permutations(range(3)))
    assert sum((seen - 1000) ** 2 / 1000 for seen in orders.values()) < 25.0


def test_newcomers_cost_nothing_by_their_number():
    """A choice among ten million newcomers stores no more than the slots."""
    chosen = newcomers.choose(1.0, 10, 10_000_000, uniforms("1" * 32, 10))
    assert len(set(chosen)) == 10
    assert all(0 <= each < 10_000_000 for each in chosen)


def test_long_slates_and_softmax_have_no_marginals():
    """As without newcomers: no marginals beyond 128 slots, nor under softmax."""
    assert set(drawn(PLANS[0], 129, np.zeros(200), 5, 3).marginal) == {None}
    assert set(drawn(PLANS[2], 3, SCORES, 5, 3).marginal) == {None}
    assert None not in drawn(PLANS[1], 128, np.zeros(200), 500, 3).marginal
