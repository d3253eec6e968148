"""All exploration schemes: draws follow the logged probabilities, and those equal enumeration."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.bundle.manifest import Exploration
from sanderling.exploration import schemes, sequential
from sanderling.exploration.philox import uniforms
from tests.support.naive import joint, joint_mixture, joint_softmax, slates

SCORES = np.array([1.5, 1.1, 1.1, 0.2])
PLANS = [
    Exploration("sequential", 0.4),
    Exploration("mixture", 0.4),
    Exploration("softmax", temperature=0.7),
]


def probability(plan, slate, scores=SCORES):
    """Return a slate's probability by the scheme's definition, guarded slots included."""
    fixed = min(plan.guarded, len(slate))
    if slate[:fixed] != tuple(range(fixed)):
        return 0.0
    rest, left = tuple(rank - fixed for rank in slate[fixed:]), scores[fixed:].tolist()
    if plan.scheme == "sequential":
        return joint(rest, len(left), plan.epsilon)
    if plan.scheme == "mixture":
        return joint_mixture(rest, len(left), plan.epsilon)
    return joint_softmax(rest, left, plan.temperature)


def drawn(plan, slots, scores, decision):
    """Return a slate drawn with the randomness of a decision's id."""
    pairs = uniforms(f"{decision:032x}", schemes.n_uniforms(plan, slots, len(scores)))
    return schemes.draw(plan, slots, scores, pairs)


@pytest.mark.parametrize("guarded", [0, 1, 3])
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.scheme)
def test_draws_have_the_logged_probabilities(plan, guarded):
    """Slates occur as often as defined (chi-square); conditionals multiply to that probability."""
    n = 30_000
    plan = msgspec.structs.replace(plan, guarded=guarded)
    counts = dict.fromkeys(slates(2, len(SCORES)), 0)
    for number in range(n):
        slate = drawn(plan, 2, SCORES, number * 7919 + 1)
        counts[tuple(slate.ranks)] += 1
        assert math.isclose(
            math.prod(slate.conditional), probability(plan, tuple(slate.ranks)), rel_tol=1e-12
        )
    expected = {slate: n * probability(plan, slate) for slate in counts}
    assert math.isclose(sum(expected.values()), n)
    assert all(counts[slate] == 0 for slate in counts if expected[slate] == 0.0)
    chi = sum((counts[slate] - due) ** 2 / due for slate, due in expected.items() if due > 0.0)
    assert chi < 35.0  # at most 11 degrees of freedom: p > 2e-4


@pytest.mark.parametrize("guarded", [0, 2])
@pytest.mark.parametrize("plan", PLANS[:2], ids=lambda plan: plan.scheme)
def test_marginals_are_sums_over_all_slates(plan, guarded):
    """A slot's logged marginal is the probability of all slates that show its item there."""
    slots = 3
    plan = msgspec.structs.replace(plan, guarded=guarded)
    exact = np.zeros((slots, len(SCORES)))
    for slate in slates(slots, len(SCORES)):
        exact[range(slots), slate] += probability(plan, slate)
    for number in range(200):
        slate = drawn(plan, slots, SCORES, number)
        np.testing.assert_allclose(slate.marginal, exact[range(slots), slate.ranks], rtol=1e-12)


def test_softmax_has_no_marginals():
    """Softmax has no closed form of marginals: they are None, in guarded slots too."""
    plan = Exploration("softmax", guarded=1)
    assert drawn(plan, 3, SCORES, 5).marginal == [None] * 3


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(["sequential", "mixture", "softmax"]),
    st.integers(1, 12),
    st.integers(0, 12),
    st.integers(0, 14),
    st.floats(0, 1),
    st.floats(-6, 6),
    st.integers(0, 2**128 - 1),
)
def test_any_draw_is_a_slate_with_positive_probabilities(
    scheme, slots, more, guarded, epsilon, log_temperature, decision
):
    """No rank is drawn twice, guarded slots are greedy, and probabilities are valid on the wire."""
    plan = Exploration(scheme, epsilon, temperature=10.0**log_temperature, guarded=guarded)
    scores = np.sort(np.random.default_rng(decision % 1000).normal(scale=10.0, size=slots + more))[
        ::-1
    ]
    slate = drawn(plan, slots, scores, decision)
    assert len(set(slate.ranks)) == slots
    assert set(slate.ranks) <= set(range(slots + more))
    assert slate.ranks[: min(guarded, slots)] == list(range(min(guarded, slots)))
    assert all(
        0.0 < p <= 1.0 + 1e-12 for p in [*slate.conditional, *slate.marginal] if p is not None
    )


@pytest.mark.parametrize("scheme", ["sequential", "mixture"])
def test_explored_slots_and_no_others_are_marked(scheme):
    """With epsilon 1 every slot that is not guarded is marked; with epsilon 0 none is."""
    always = Exploration(scheme, 1.0, guarded=1)
    never = Exploration(scheme, 0.0)
    assert drawn(always, 3, SCORES, 9).explored == [False, True, True]
    assert drawn(never, 3, SCORES, 9).explored == [False] * 3


def test_a_greedy_plan_is_certain():
    """The greedy form of any plan shows the best items in order with probability 1."""
    for plan in PLANS:
        slate = drawn(schemes.greedy(plan), 3, SCORES, 4)
        assert slate.ranks == [0, 1, 2]
        assert slate.conditional == list(slate.marginal) == [1.0] * 3


def test_long_slates_are_drawn_without_marginals():
    """A slate of a thousand slots has no marginals, since they would take too long."""
    slate = drawn(Exploration(), 1000, np.zeros(1000), 3)
    assert slate.marginal == [None] * 1000
    assert (
        drawn(Exploration(), sequential.MAX_MARGINAL_SLOTS, np.zeros(1000), 3).marginal[0]
        is not None
    )


@pytest.mark.parametrize("slots", [-1, 5])
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.scheme)
def test_slates_longer_than_the_pool_are_refused(plan, slots):
    """More slots than items raise ValueError, in every scheme."""
    with pytest.raises(ValueError, match="expected 0 <= slots <= pool"):
        schemes.draw(plan, slots, SCORES, [(0.5, 0.5)] * 8)


def test_long_mixtures_stay_exact():
    """Conditionals stay exact where their products underflow: after the first one each is 1 / R."""
    slate = drawn(Exploration("mixture", 1.0), 1000, np.zeros(1000), 3)
    assert slate.conditional[-1] == 1.0
    assert slate.conditional[500] == 1.0 / 500
