"""Off-policy estimators: against loops, against a world whose truth is known, and their refusals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling import explore
from sanderling_trainer.data.examples import Decisions
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


def judge(clicks, logged, target, group=None, judged=None):
    """Return the estimates by name, all slots judged and each decision a group unless told otherwise."""
    judged = np.ones(clicks.shape, np.bool_) if judged is None else judged
    group = np.arange(len(clicks)) if group is None else group
    found = ope.estimates(clicks, judged, group, logged, target, np.random.default_rng(0))
    return {one.estimator: one for one in found}


def test_only_self_normalised_estimates_follow_a_shift():
    """With all clicks turned round, V(1 - r) = 1 - V(r) holds for every SN estimate, and not for a plain one."""
    _, clicks, logged, target = world(5, 500, [2, 0, 1, 5, 3, 4])
    straight, turned = judge(clicks, logged, target), judge(1 - clicks, logged, target)
    for name, one in straight.items():
        if name.startswith("SN-"):
            assert turned[name].value == pytest.approx(1.0 - one.value)
    assert abs(turned["SIPS"].value - (1.0 - straight["SIPS"].value)) > 1e-3


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Of 100 worlds the 95 % interval holds the enumerated truth in at least 88: 95 less 3 binomial s.e."""
    order = [2, 0, 1, 5, 3, 4]
    held = dict.fromkeys(("IIPS", "SN-IIPS", "inclusion", "SN-inclusion"), 0)
    for seed in range(100):
        _, clicks, logged, target = world(1000 + seed, 200, order)
        found = judge(clicks, logged, target)
        for name in held:
            held[name] += found[name].low <= truth(order) <= found[name].high
    assert min(held.values()) >= 88, held


def test_marginals_and_inclusions_equal_enumeration():
    """They are the sums of the joint probability over the slates that show the item there, or anywhere."""
    order = np.array([3, 0, 4, 1, 5, 2])
    shown = np.array([[0, 1, 2], [5, 4, 3]])
    found = ope.sequential_propensities(order[shown], SLOTS, POOL, TARGET)
    for place, slot in itertools.product(range(2), range(SLOTS)):
        rank = int(order[shown[place, slot]])
        here = sum(joint(one, POOL, TARGET) for one in slates(SLOTS, POOL) if one[slot] == rank)
        anywhere = sum(joint(one, POOL, TARGET) for one in slates(SLOTS, POOL) if rank in one)
        assert found.marginal[place, slot] == pytest.approx(here)
        assert found.inclusion[place, slot] == pytest.approx(anywhere)


def test_each_decision_may_have_its_own_pool():
    """Propensities with a pool per decision are those of each decision alone."""
    ranks = np.array([[0, 1, 2], [4, 0, 1], [1, 5, 0]])
    together = ope.sequential_propensities(ranks, SLOTS, np.array([3, 5, 6]), LOGGING)
    for at, pool in enumerate([3, 5, 6]):
        alone = ope.sequential_propensities(ranks[at : at + 1], SLOTS, pool, LOGGING)
        for one, other in zip(together, alone, strict=True):
            np.testing.assert_allclose(one[at], other[0])


def test_a_target_that_the_log_does_not_support_is_refused():
    """Where half of the target's mass is on slates that were never shown, the mean weight tells."""
    _, clicks, logged, target = world(6, 2000, list(range(POOL)))
    half = ope.Propensities(*(0.5 * probability for probability in logged))
    assert "mean weight" in str(judge(clicks, logged, half)["IIPS"].refused)
    assert judge(clicks, logged, target)["IIPS"].refused is None


def test_few_groups_are_refused():
    """Decisions of 3 installs give no interval to rely on, however many they are."""
    _, clicks, logged, _ = world(7, 600, list(range(POOL)))
    assert "groups" in str(judge(clicks, logged, logged, group=np.arange(600) % 3)["IIPS"].refused)


def test_intervals_widen_when_decisions_hang_together():
    """The same decisions four times over are no more evidence when the group tells that they are the same."""
    _, clicks, logged, target = world(8, 200, [1, 0, 2, 3, 4, 5])
    many = [ope.Propensities(*(np.tile(x, (4, 1)) for x in policy)) for policy in (logged, target)]
    once = judge(clicks, logged, target)["IIPS"]
    known = judge(np.tile(clicks, (4, 1)), *many, group=np.tile(np.arange(200), 4))["IIPS"]
    blind = judge(np.tile(clicks, (4, 1)), *many)["IIPS"]
    assert known.high - known.low == pytest.approx(once.high - once.low)
    assert blind.high - blind.low < 0.6 * (once.high - once.low)


def test_the_difference_is_paired():
    """On shared resamples the logging policy differs from itself by exactly nothing."""
    _, clicks, logged, _ = world(9, 300, list(range(POOL)))
    found = judge(clicks, logged, logged)
    change = ope.difference(found["SN-inclusion"], found["observed"])
    assert (change.value, change.low, change.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)


def test_what_cannot_have_happened_is_an_error():
    """A logged propensity of 0, a negative rank, and a log without judged slots raise ValueError."""
    ranks, clicks, logged, target = world(10, 40, list(range(POOL)))
    with pytest.raises(ValueError, match="impossible"):
        judge(clicks, logged._replace(marginal=np.zeros(ranks.shape)), target)
    with pytest.raises(ValueError, match="ranks"):
        ope.sequential_propensities(ranks - 1, SLOTS, POOL, LOGGING)
    with pytest.raises(ValueError, match="judged"):
        judge(clicks, logged, target, judged=np.zeros(ranks.shape, np.bool_))


def test_the_report_leaves_out_what_it_cannot_reproduce():
    """Decisions with unknown items, or logged under other settings than assumed, are counted and not judged."""
    ranks, clicks, logged, target = world(11, 400, [1, 0, 2, 3, 4, 5])
    conditional = logged.conditional.copy()
    conditional[0] *= 0.9
    items = ranks.copy()
    items[1, 2] = -1
    log = Decisions(
        history=np.arange(400),
        at=np.zeros(400, np.int64),
        items=items,
        logged=logged.marginal,
        conditional=conditional,
        reward=np.where(clicks, 1.0, -1.0).astype(np.float32),
        judged=np.ones(ranks.shape, np.bool_),
        context=np.full(400, -1),
        ranks=ranks,
        group=np.arange(400),
    )
    found = ope.report(log, logged, target, np.random.default_rng(0))
    assert (found["decisions"], found["left_out"]) == (398, 2)
    assert found["estimates"][0]["value"] == pytest.approx(clicks[2:].mean())
    assert found["difference"]["low"] <= found["difference"]["value"] <= found["difference"]["high"]


@pytest.mark.parametrize(
    ("reward", "right"),
    [
        (lambda slate, slot: slate[slot] / (1.0 + slate[0] + slate[-1]), {"SIPS"}),
        (lambda slate, slot: slate[slot] / (1.0 + sum(slate[:slot])), {"SIPS", "RIPS"}),
        (lambda slate, slot: slate[slot] / (1.0 + slot), {"SIPS", "RIPS", "IIPS"}),
        (lambda slate, slot: slate[slot], {"SIPS", "RIPS", "IIPS", "inclusion"}),
    ],
    ids=["whole slate", "items above", "item and slot", "item alone"],
)
def test_an_estimator_is_exact_where_its_assumption_holds_and_only_there(reward, right):
    """Expectations over all slates, without any sampling, equal the target's for the estimators that may claim it."""
    every = np.array(list(slates(SLOTS, POOL)))
    order = np.array([3, 0, 4, 1, 5, 2])
    logged = ope.sequential_propensities(every, SLOTS, POOL, LOGGING)
    target = ope.sequential_propensities(order[every], SLOTS, POOL, TARGET)
    before = np.array([joint(tuple(one), POOL, LOGGING) for one in every.tolist()])
    after = np.array([joint(tuple(one), POOL, TARGET) for one in order[every].tolist()])
    rewards = np.array([[reward(one, slot) for slot in range(SLOTS)] for one in every.tolist()])
    wanted = (after[:, None] * rewards).sum()
    for name, weight in ope.weights(logged, target).items():
        found = (before[:, None] * weight * rewards).sum()
        assert (found == pytest.approx(wanted, rel=1e-9)) == (name in right), name
