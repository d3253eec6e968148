"""All exploration schemes: draws against probabilities, and probabilities against enumeration of every slate."""

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


def chance(plan, slate, scores=SCORES):
    """Return the probability of a slate of ranks by the plan's definition, guarded slots included."""
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
    """Draw with the randomness of a decision's id."""
    return schemes.draw(
        plan, slots, scores, uniforms(f"{decision:032x}", schemes.blocks(plan, slots, len(scores)))
    )


@pytest.mark.parametrize("guarded", [0, 1, 3])
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.scheme)
def test_draws_have_the_logged_probabilities(plan, guarded):
    """The slates of many decisions occur as often as the scheme's definition says (chi-square), and the product of the
    logged conditionals is that probability."""
    plan, n = msgspec.structs.replace(plan, guarded=guarded), 30_000
    counts = dict.fromkeys(slates(2, len(SCORES)), 0)
    for at in range(n):
        slate = drawn(plan, 2, SCORES, at * 7919 + 1)
        counts[tuple(slate.ranks)] += 1
        assert math.isclose(
            math.prod(slate.conditional), chance(plan, tuple(slate.ranks)), rel_tol=1e-12
        )
    expected = {slate: n * chance(plan, slate) for slate in counts}
    assert math.isclose(sum(expected.values()), n)
    assert all(counts[slate] == 0 for slate in counts if expected[slate] == 0.0)
    chi = sum((counts[slate] - due) ** 2 / due for slate, due in expected.items() if due > 0.0)
    assert chi < 35.0  # at most 11 degrees of freedom: p > 2e-4


@pytest.mark.parametrize("guarded", [0, 2])
@pytest.mark.parametrize("plan", PLANS[:2], ids=lambda plan: plan.scheme)
def test_marginals_are_sums_over_all_slates(plan, guarded):
    """The logged marginal of each slot is the sum of the probabilities of all slates that show its item there."""
    plan, slots = msgspec.structs.replace(plan, guarded=guarded), 3
    exact = np.zeros((slots, len(SCORES)))
    for slate in slates(slots, len(SCORES)):
        exact[range(slots), slate] += chance(plan, slate)
    for at in range(200):
        slate = drawn(plan, slots, SCORES, at)
        np.testing.assert_allclose(slate.marginal, exact[range(slots), slate.ranks], rtol=1e-12)


def test_softmax_has_no_marginals():
    """What has no closed form is not made up: softmax gives None, in guarded slots too."""
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
def test_any_draw_is_a_slate_with_positive_chances(
    scheme, slots, more, guarded, epsilon, heat, decision
):
    """No rank is shown twice, guarded slots are greedy, and what was drawn had a chance that the wire can carry."""
    plan = Exploration(scheme, epsilon, temperature=10.0**heat, guarded=guarded)
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
def test_an_explored_slot_is_marked_and_only_such_a_one(scheme):
    """With certainty to explore every free slot is marked and no guarded one; without epsilon none is."""
    always, never = Exploration(scheme, 1.0, guarded=1), Exploration(scheme, 0.0)
    assert drawn(always, 3, SCORES, 9).explored == [False, True, True]
    assert drawn(never, 3, SCORES, 9).explored == [False] * 3


def test_a_greedy_plan_is_certain():
    """The greedy form of any plan shows the best items in order with probability 1."""
    for plan in PLANS:
        slate = drawn(schemes.greedy(plan), 3, SCORES, 4)
        assert slate.ranks == [0, 1, 2]
        assert slate.conditional == list(slate.marginal) == [1.0] * 3


def test_long_slates_are_drawn_without_marginals():
    """A slate of a thousand slots takes no time worth speaking of: its marginals are not given."""
    slate = drawn(Exploration(), 1000, np.zeros(1000), 3)
    assert slate.marginal == [None] * 1000
    assert drawn(Exploration(), sequential.LONGEST, np.zeros(1000), 3).marginal[0] is not None


@pytest.mark.parametrize("slots", [-1, 5])
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.scheme)
def test_slates_longer_than_the_pool_are_refused(plan, slots):
    """More slots than items raise ValueError, in every scheme."""
    with pytest.raises(ValueError, match="expected 0 <= slots <= pool"):
        schemes.draw(plan, slots, SCORES, [(0.5, 0.5)] * 8)


def test_long_mixtures_stay_exact():
    """Chances that underflow as products stay exact one by one: after the first random slot each is 1 / R."""
    slate = drawn(Exploration("mixture", 1.0), 1000, np.zeros(1000), 3)
    assert slate.conditional[-1] == 1.0
    assert slate.conditional[500] == 1.0 / 500
