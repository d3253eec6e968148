"""Off-policy estimators: equal to loops and to paper, unbiased as claimed, strict on input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.estimation.loops import joint, naive_estimates, slates
from bench.estimation.slate_simulator import (
    CLICK_MODELS,
    LOGGING,
    ORDER,
    POOL,
    SLOTS,
    TARGET,
    click_probabilities,
    draw_log,
    estimates_of,
    predict,
    true_value,
)
from sanderling_trainer.evaluation import ope
from sanderling_trainer.evaluation.ope import estimators

pytestmark = pytest.mark.lab

SLATE = ("SIPS", "SN-SIPS")
PREFIX = ("RIPS", "SN-RIPS", "Cascade-DR")
ITEM = ("IIPS", "SN-IIPS", "DR", "Switch-DR", "DRos")
ANYWHERE = ("inclusion", "SN-inclusion", "DR-inclusion")
UNBIASED = {
    "independent": SLATE + PREFIX + ITEM + ANYWHERE,
    "item and position": SLATE + PREFIX + ITEM,
    "cascade": SLATE + PREFIX,
    "whole slate": SLATE,
}
BIASED = {
    "item and position": ANYWHERE,
    "cascade": ("IIPS", "SN-IIPS", "DR", *ANYWHERE),
    "whole slate": (*PREFIX, *ITEM, *ANYWHERE),
}


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.permutations(range(POOL)))
def test_every_estimator_equals_its_loop(seed, order):
    """All estimators equal loops, also with unjudged slots and decisions that survived shedding."""
    sample = draw_log("cascade", 30, seed, order=order, judged=0.8)
    rng = np.random.default_rng(seed)
    sample.log.judged[0, 0] = True
    log = sample.log._replace(pass_probability=rng.choice([1.0, 0.5, 0.25], 30))
    predicted = predict(sample, rng, order=order)
    fast = ope.estimate_all(log, sample.target, rng, predicted=predicted)
    slow = naive_estimates(log, sample.target, predicted, estimators.WEIGHT_CAP)
    assert {estimate.estimator for estimate in fast} == set(slow)
    for estimate in fast:
        expected = slow[estimate.estimator]
        assert estimate.value == pytest.approx(expected, rel=1e-9, abs=1e-12), estimate.estimator


def estimates_of_single_items(reward, logged, target, shown=0.0, expected=0.0):
    """Return the estimates of a log of slates of one item, by name."""
    logged, target, reward = (
        np.array(column, float)[:, None] for column in (logged, target, reward)
    )
    log = ope.SlateLog(
        reward,
        reward >= 0,
        np.arange(len(reward)),
        ope.Propensities(*3 * [logged]),
        np.ones(len(reward)),
    )
    q = [np.full(reward.shape, value) for value in (shown, expected, expected, 0.0)]
    found = ope.estimate_all(
        log,
        ope.Propensities(*3 * [target]),
        np.random.default_rng(0),
        predicted=ope.Predictions(*q),
    )
    return {one.estimator: one for one in found}


def test_single_items_by_hand():
    """Weights 2, 1/2, 30 and 0 with clicks 1, 0, 1, 1 give the values computed on paper."""
    found = estimates_of_single_items(
        [1, 0, 1, 1], [0.25, 0.5, 0.01, 0.5], [0.5, 0.25, 0.3, 0.0], shown=0.5, expected=0.4
    )
    cap = estimators.WEIGHT_CAP
    wanted = {
        "observed": 3 / 4,
        "IIPS": 32 / 4,
        "SN-IIPS": 32 / 32.5,
        "clipped IIPS": (2 + cap) / 4,
        "DM": 0.4,
        "DR": 0.4 + (2 * 0.5 - 0.5 * 0.5 + 30 * 0.5) / 4,
        "Switch-DR": 0.4 + (2 * 0.5 - 0.5 * 0.5) / 4,
        "DRos": 0.4
        + sum(cap**2 * w / (w**2 + cap**2) * d for w, d in ((2, 0.5), (0.5, -0.5), (30, 0.5))) / 4,
    }
    for name, value in wanted.items():
        assert found[name].value == pytest.approx(value), name
    assert found["IIPS"].ess == pytest.approx(32.5**2 / (4 + 0.25 + 900))
    assert found["IIPS"].mean_weight == pytest.approx(32.5 / 4)
    assert found["IIPS"].max_weight == pytest.approx(30)
    for family in ("SIPS", "RIPS", "inclusion"):
        assert found[family].value == pytest.approx(32 / 4)


def test_two_slots_by_hand():
    """RIPS is normalized in each slot; Cascade-DR carries the weight of the slot above."""
    logged = ope.Propensities(*3 * [np.array([[0.5, 0.5], [0.5, 0.25]])])
    target = ope.Propensities(
        np.array([[1.0, 0.5], [0.25, 0.5]]), logged.marginal, logged.inclusion
    )
    log = ope.SlateLog(
        np.array([[1.0, 0.0], [0.0, 1.0]]), np.ones((2, 2), bool), np.arange(2), logged, np.ones(2)
    )
    shown, above = np.array([[0.5, 0.25], [0.5, 0.75]]), np.array([[0.6, 0.3], [0.2, 0.4]])
    predicted = ope.Predictions(shown, above, above, np.zeros((2, 2)))
    found = ope.estimate_all(log, target, np.random.default_rng(0), predicted=predicted)
    values = {one.estimator: one.value for one in found}
    # prefix weights: first slate 2, 2; second 1/2, 1
    assert values["RIPS"] == pytest.approx((2 * 1 + 1 * 1) / 4)
    assert values["SN-RIPS"] == pytest.approx((2 / 2.5 + 1 / 3) / 2)
    first = [2 * (1 - 0.5) + 0.6, 2 * (0 - 0.25) + 2 * 0.3]
    second = [0.5 * (0 - 0.5) + 0.2, 1 * (1 - 0.75) + 0.5 * 0.4]
    assert values["Cascade-DR"] == pytest.approx(sum(first + second) / 4)


@pytest.mark.parametrize("clicks", CLICK_MODELS)
def test_estimators_are_unbiased_under_their_assumption_and_biased_outside(clicks):
    """The mean over 30 logs is within 3 standard errors of the truth where the assumption holds.

    Where it does not hold, it is further away.
    """
    values: dict[str, list[float]] = {}
    for seed in range(30):
        for name, one in estimates_of(
            draw_log(clicks, 2000, seed, group=np.arange(2000) // 20)
        ).items():
            values.setdefault(name, []).append(one.value)
    off = {
        name: (np.mean(found) - true_value(clicks)) / (np.std(found, ddof=1) / np.sqrt(len(found)))
        for name, found in values.items()
    }
    for name in UNBIASED[clicks]:
        assert abs(off[name]) <= 3.0, (name, off[name])
    for name in BIASED.get(clicks, ()):
        assert abs(off[name]) > 3.0, (name, off[name])


@pytest.mark.parametrize("clicks", CLICK_MODELS)
def test_an_estimator_is_exact_where_its_assumption_holds_and_only_there(clicks):
    """Expectations over all slates equal the truth for exactly the families that may claim it.

    For Cascade-DR that holds with any reward model.
    """
    every = np.array(list(slates(SLOTS, POOL)))
    logged = ope.sequential_propensities(every, SLOTS, POOL, LOGGING)
    target = ope.sequential_propensities(ORDER[every], SLOTS, POOL, TARGET)
    before = np.array([joint(tuple(one), POOL, LOGGING) for one in every.tolist()])[:, None]
    rewards = click_probabilities(clicks, every)
    for name, weight in ope.importance_weights(logged, target).items():
        found = (before * weight * rewards).sum() / SLOTS
        assert (found == pytest.approx(true_value(clicks), rel=1e-9)) == (
            name in UNBIASED[clicks]
        ), name
    q = np.random.default_rng(0).random(POOL)
    pool_items = np.tile(np.argsort(ORDER), (len(every), 1))
    _, above = ope.expected_rewards(q[pool_items], ORDER[every], POOL, TARGET)
    found = (
        before
        * estimators.cascade(
            ope.importance_weights(logged, target)["RIPS"], rewards, q[every], above
        )
    ).sum() / SLOTS
    assert (found == pytest.approx(true_value(clicks), rel=1e-9)) == (
        "Cascade-DR" in UNBIASED[clicks]
    )


def test_the_logging_policy_is_estimated_as_observed():
    """With the logging policy as the target all weights are 1, all estimates the observed rate."""
    sample = draw_log("cascade", 300, 1)
    found = estimates_of(sample._replace(target=sample.log.logged), predicted=None)
    for one in found.values():
        assert one.value == pytest.approx(sample.log.reward.mean())
        assert one.max_weight == pytest.approx(1.0)
        assert one.refused is None
    change = ope.difference(found["SN-inclusion"], found["observed"])
    assert (change.value, change.low, change.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.floats(-3, 3))
def test_self_normalized_and_doubly_robust_estimators_follow_a_shift(seed, shift):
    """V(r + c) = V(r) + c for them, with the reward model refitted."""
    sample = draw_log("independent", 200, seed)
    weight, log = ope.importance_weights(sample.log.logged, sample.target), sample.log

    def values(reward):
        model = predict(
            sample._replace(log=log._replace(reward=reward)), np.random.default_rng(seed)
        )
        item = weight["IIPS"]
        top, bottom, slots = (
            (weight["RIPS"] * reward).sum(axis=0),
            weight["RIPS"].sum(axis=0),
            np.full(SLOTS, 200.0),
        )
        return {
            "SN-RIPS": estimators.self_normalized(top, bottom, slots),
            "DM": estimators.direct(model.expected).mean(),
            "DR": estimators.doubly_robust(item, reward, model.shown, model.expected).mean(),
            "Switch-DR": estimators.switch(item, reward, model.shown, model.expected, 1.5).mean(),
            "DRos": estimators.optimistic_shrinkage(
                item, reward, model.shown, model.expected, 2.0
            ).mean(),
        }

    straight, moved = values(log.reward), values(log.reward + shift)
    for name, value in straight.items():
        assert moved[name] == pytest.approx(value + shift, abs=1e-6), name


def test_ips_does_not_follow_a_shift():
    """V(r + 1) - V(r) is the mean weight, which is 1 on average only."""
    sample = draw_log("independent", 200, 0)
    weight = ope.importance_weights(sample.log.logged, sample.target)["IIPS"]
    straight, moved = (
        estimators.ips(weight, sample.log.reward + shift).mean() for shift in (0.0, 1.0)
    )
    assert moved - straight == pytest.approx(weight.mean())
    assert abs(moved - straight - 1.0) > 1e-3


def test_inverting_all_clicks_inverts_the_estimate():
    """V(1 - r) = 1 - V(r) through the public interface for every estimator that follows a shift."""
    sample = draw_log("item and position", 500, 5)
    straight = estimates_of(sample)
    inverted = estimates_of(
        sample._replace(log=sample.log._replace(reward=1.0 - sample.log.reward))
    )
    for name in ("SN-SIPS", "SN-RIPS", "SN-IIPS", "SN-inclusion", "DM", "DR", "Switch-DR", "DRos"):
        assert inverted[name].value == pytest.approx(1.0 - straight[name].value), name
    assert abs(inverted["SIPS"].value - (1.0 - straight["SIPS"].value)) > 1e-3


def test_surviving_decisions_count_for_those_that_were_shed():
    """Where half of the users were shed with probability 3/4, weights 1/p restore the mix."""
    sample = draw_log("independent", 4000, 3)
    reward = sample.log.reward.copy()
    reward[2000:] = 0.0
    kept = np.concatenate([np.arange(2000)[::4], np.arange(2000, 4000)])
    log = ope.SlateLog(
        reward[kept],
        sample.log.judged[kept],
        sample.log.group[kept],
        ope.Propensities(*(part[kept] for part in sample.log.logged)),
        np.where(kept < 2000, 0.25, 1.0),
    )
    observed = ope.estimate_all(log, log.logged, np.random.default_rng(0))[0]
    blind = ope.estimate_all(
        log._replace(pass_probability=np.ones(len(kept))), log.logged, np.random.default_rng(0)
    )[0]
    assert observed.value == pytest.approx(reward.mean(), abs=0.02)
    assert blind.value < 0.6 * reward.mean()


def test_a_log_of_two_policies_needs_the_propensities_of_each():
    """With each decision's own propensities the estimate is right, with one policy's it is not."""
    own, one_for_all = [], []
    for seed in range(20):
        one, other = draw_log("independent", 1000, seed), draw_log("independent", 1000, seed + 1000)
        ranks = other.items  # drawn by the target's order of items, under the logging policy's ε
        items = np.argsort(ORDER)[ranks]
        reward = (
            np.random.default_rng(seed).random(items.shape)
            < click_probabilities("independent", items)
        ).astype(float)
        target = concatenated(one.target, ope.sequential_propensities(ranks, SLOTS, POOL, TARGET))
        for found, logged in ((own, ranks), (one_for_all, items)):
            log = ope.SlateLog(
                np.concatenate([one.log.reward, reward]),
                np.ones((2000, SLOTS), bool),
                np.arange(2000) // 20,
                concatenated(
                    one.log.logged, ope.sequential_propensities(logged, SLOTS, POOL, LOGGING)
                ),
                np.ones(2000),
            )
            judged = {
                e.estimator: e for e in ope.estimate_all(log, target, np.random.default_rng(0))
            }
            found.append(judged["IIPS"].value - true_value("independent"))
    error = np.std(own, ddof=1) / np.sqrt(len(own))
    assert abs(np.mean(own)) <= 3 * error
    assert abs(np.mean(one_for_all)) > 10 * error


def concatenated(first, second):
    """Return the propensities of two logs as those of one."""
    return ope.Propensities(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))


def test_an_estimate_that_rests_on_two_decisions_is_refused():
    """With all weight on 2 of 1,000 decisions the effective sample size is 2."""
    target = np.full(1000, 1e-6)
    target[[3, 700]] = 1.0
    found = estimates_of_single_items(np.arange(1000) % 2, np.full(1000, 0.5), target)
    for name in ("SIPS", "SN-IIPS", "DR", "Cascade-DR", "SN-inclusion"):
        assert found[name].ess == pytest.approx(2.0, rel=0.01)
        assert "effective sample size 2 is below 100" in str(found[name].refused), name


def test_unsupported_mass_must_explain_the_mean_weight():
    """Where half of the target's mass was never shown, only a mass of a half is not refused."""
    sample = draw_log("independent", 2000, 6)
    half = ope.Propensities(*(0.5 * probability for probability in sample.log.logged))
    assert "mean weight" in str(estimates_of(sample._replace(target=half))["IIPS"].refused)
    assert estimates_of(sample)["IIPS"].refused is None
    explained = estimates_of(sample._replace(target=half), unsupported=0.5)
    assert explained["IIPS"].refused is None
    assert explained["IIPS"].unsupported == 0.5
    partly = estimates_of(sample, unsupported=0.2)
    assert "from 0.8" in str(partly["IIPS"].refused)
    assert partly["observed"].refused is None


def test_few_groups_are_refused():
    """Decisions of 3 installs, or nearly all of one install, give no reliable interval."""
    sample = draw_log("independent", 600, 7)
    assert "groups" in str(
        estimates_of(sample._replace(log=sample.log._replace(group=np.arange(600) % 3)))[
            "IIPS"
        ].refused
    )
    lopsided = np.where(np.arange(600) < 500, 0, np.arange(600))
    assert "groups" in str(
        estimates_of(sample._replace(log=sample.log._replace(group=lopsided)))["IIPS"].refused
    )


def test_intervals_widen_when_decisions_are_grouped():
    """The same decisions four times over are no more evidence when the group says so."""
    sample = draw_log("independent", 300, 8)
    log = ope.SlateLog(
        np.tile(sample.log.reward, (4, 1)),
        np.tile(sample.log.judged, (4, 1)),
        np.tile(np.arange(300), 4),
        ope.Propensities(*(np.tile(part, (4, 1)) for part in sample.log.logged)),
        np.ones(1200),
    )
    target = ope.Propensities(*(np.tile(part, (4, 1)) for part in sample.target))

    def width(log, target):
        one = next(
            e
            for e in ope.estimate_all(log, target, np.random.default_rng(0))
            if e.estimator == "IIPS"
        )
        return one.high - one.low

    once = width(sample.log, sample.target)
    assert width(log, target) == pytest.approx(once)
    assert width(log._replace(group=np.arange(1200)), target) < 0.6 * once


@pytest.mark.parametrize("bad", [0.0, 1.5, -0.1, np.nan])
@pytest.mark.parametrize("kind", ope.Propensities._fields)
def test_invalid_logged_propensities_are_an_error(bad, kind):
    """A logged propensity of 0, above 1, negative or NaN raises ValueError, of whichever kind."""
    sample = draw_log("independent", 40, 10)
    wrong = getattr(sample.log.logged, kind).copy()
    wrong[3, 1] = bad
    log = sample.log._replace(logged=sample.log.logged._replace(**{kind: wrong}))
    with pytest.raises(ValueError, match="1 of 40"):
        ope.estimate_all(log, sample.target, np.random.default_rng(0))


@pytest.mark.parametrize("bad", [-1.0, 2.0, 0.5, np.nan])
def test_rewards_that_are_not_clicks_are_an_error(bad):
    """Rewards of -1, 2, 0.5 or NaN raise ValueError, unless their slot was not judged."""
    sample = draw_log("independent", 40, 3)
    sample.log.reward[5, 0] = bad
    with pytest.raises(ValueError, match="not 0 or 1"):
        ope.estimate_all(sample.log, sample.target, np.random.default_rng(0))
    sample.log.judged[5, 0] = False
    assert all(
        np.isfinite(one.value)
        for one in ope.estimate_all(sample.log, sample.target, np.random.default_rng(0))
    )


def test_other_invalid_input_is_an_error():
    """Invalid targets, survival probabilities and ranks, or no judged slot, raise ValueError."""
    sample, rng = draw_log("independent", 40, 3), np.random.default_rng(0)
    with pytest.raises(ValueError, match="target's conditional"):
        ope.estimate_all(
            sample.log, sample.target._replace(conditional=1.0 + sample.target.conditional), rng
        )
    with pytest.raises(ValueError, match="survival"):
        ope.estimate_all(sample.log._replace(pass_probability=np.zeros(40)), sample.target, rng)
    with pytest.raises(ValueError, match="ranks"):
        ope.sequential_propensities(sample.items - 1, SLOTS, POOL, LOGGING)
    with pytest.raises(ValueError, match="judged"):
        ope.estimate_all(
            sample.log._replace(judged=np.zeros((40, SLOTS), bool)), sample.target, rng
        )
    empty = draw_log("independent", 0, 3)
    with pytest.raises(ValueError, match="judged"):
        ope.estimate_all(empty.log, empty.target, rng)


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_constant_rewards_are_refused(constant):
    """When all rewards are equal the bootstrap has no width, and the estimates are refused."""
    sample = draw_log("independent", 400, 3)
    found = estimates_of(
        sample._replace(log=sample.log._replace(reward=np.full((400, SLOTS), constant)))
    )
    for name in ("observed", "SN-IIPS", "DR"):
        assert "alike" in str(found[name].refused), name
