"""Off-policy estimators: against loops, by hand, against worlds whose truth is enumerated, and with bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.estimation.loops import joint, naive_estimates, slates
from bench.estimation.slate_worlds import (
    CLICKS,
    LOGGING,
    ORDER,
    POOL,
    SLOTS,
    TARGET,
    chances,
    draw,
    judge,
    predict,
    truth,
)
from sanderling.bundle.manifest import Exploration
from sanderling.exploration import schemes, sequential
from sanderling_trainer.evaluation import ope
from sanderling_trainer.evaluation.ope import estimators

pytestmark = pytest.mark.lab

FIRST = ("SIPS", "SN-SIPS")
PREFIX = ("RIPS", "SN-RIPS", "Cascade-DR")
ITEM = ("IIPS", "SN-IIPS", "DR", "Switch-DR", "DRos")
ANYWHERE = ("inclusion", "SN-inclusion", "DR-inclusion")
RIGHT = {
    "independent": FIRST + PREFIX + ITEM + ANYWHERE,
    "item and position": FIRST + PREFIX + ITEM,
    "cascade": FIRST + PREFIX,
    "whole slate": FIRST,
}
WRONG = {
    "item and position": ANYWHERE,
    "cascade": ("IIPS", "SN-IIPS", "DR", *ANYWHERE),
    "whole slate": (*PREFIX, *ITEM, *ANYWHERE),
}


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.permutations(range(POOL)))
def test_every_estimator_equals_its_loop(seed, order):
    """All estimators equal loops over decisions and slots, with unjudged slots and decisions that were likely shed."""
    world = draw("cascade", 30, seed, order=order, judged=0.8)
    rng = np.random.default_rng(seed)
    world.log.judged[0, 0] = True
    log = world.log._replace(survived=rng.choice([1.0, 0.5, 0.25], 30))
    predicted = predict(world, rng, order=order)
    fast = ope.estimates(log, world.target, rng, predicted=predicted)
    slow = naive_estimates(log, world.target, predicted, estimators.CAP)
    assert {one.estimator for one in fast} == set(slow)
    for one in fast:
        assert one.value == pytest.approx(slow[one.estimator], rel=1e-9, abs=1e-12), one.estimator


def by_hand(reward, logged, target, shown=0.0, expected=0.0):
    """Return the estimates of a log of single items, by name."""
    logged, target, reward = (
        np.array(column, float)[:, None] for column in (logged, target, reward)
    )
    log = ope.Slates(
        reward,
        reward >= 0,
        np.arange(len(reward)),
        ope.Propensities(*3 * [logged]),
        np.ones(len(reward)),
    )
    q = [np.full(reward.shape, value) for value in (shown, expected, expected, 0.0)]
    found = ope.estimates(
        log,
        ope.Propensities(*3 * [target]),
        np.random.default_rng(0),
        predicted=ope.Predictions(*q),
    )
    return {one.estimator: one for one in found}


def test_single_items_by_hand():
    """Weights 2, 1/2, 30 and 0 with clicks 1, 0, 1, 1 give what one computes on paper, for the whole table."""
    found = by_hand(
        [1, 0, 1, 1], [0.25, 0.5, 0.01, 0.5], [0.5, 0.25, 0.3, 0.0], shown=0.5, expected=0.4
    )
    cap = estimators.CAP
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
    """Of two slates of two slots, RIPS is normalised in each slot; Cascade-DR carries the weight of the slot above."""
    logged = ope.Propensities(*3 * [np.array([[0.5, 0.5], [0.5, 0.25]])])
    target = ope.Propensities(
        np.array([[1.0, 0.5], [0.25, 0.5]]), logged.marginal, logged.inclusion
    )
    log = ope.Slates(
        np.array([[1.0, 0.0], [0.0, 1.0]]), np.ones((2, 2), bool), np.arange(2), logged, np.ones(2)
    )
    shown, above = np.array([[0.5, 0.25], [0.5, 0.75]]), np.array([[0.6, 0.3], [0.2, 0.4]])
    predicted = ope.Predictions(shown, above, above, np.zeros((2, 2)))
    found = ope.estimates(log, target, np.random.default_rng(0), predicted=predicted)
    values = {one.estimator: one.value for one in found}
    # prefix weights: first slate 2, 2; second 1/2, 1
    assert values["RIPS"] == pytest.approx((2 * 1 + 1 * 1) / 4)
    assert values["SN-RIPS"] == pytest.approx((2 / 2.5 + 1 / 3) / 2)
    first = [2 * (1 - 0.5) + 0.6, 2 * (0 - 0.25) + 2 * 0.3]
    second = [0.5 * (0 - 0.5) + 0.2, 1 * (1 - 0.75) + 0.5 * 0.4]
    assert values["Cascade-DR"] == pytest.approx(sum(first + second) / 4)


@pytest.mark.parametrize("clicks", CLICKS)
def test_estimators_are_right_under_their_assumption_and_visibly_wrong_outside(clicks):
    """Over 30 worlds of 2,000 slates the mean is within 3 s.e. of the truth where the assumption holds, and beyond 3
    where it does not."""
    values: dict[str, list[float]] = {}
    for seed in range(30):
        for name, one in judge(draw(clicks, 2000, seed, group=np.arange(2000) // 20)).items():
            values.setdefault(name, []).append(one.value)
    off = {
        name: (np.mean(found) - truth(clicks)) / (np.std(found, ddof=1) / np.sqrt(len(found)))
        for name, found in values.items()
    }
    for name in RIGHT[clicks]:
        assert abs(off[name]) <= 3.0, (name, off[name])
    for name in WRONG.get(clicks, ()):
        assert abs(off[name]) > 3.0, (name, off[name])


@pytest.mark.parametrize("clicks", CLICKS)
def test_an_estimator_is_exact_where_its_assumption_holds_and_only_there(clicks):
    """Expectations over all slates, without any sampling, equal the target's for the families that may claim it, and
    for Cascade-DR with any model at all."""
    every = np.array(list(slates(SLOTS, POOL)))
    logged = ope.sequential_propensities(every, SLOTS, POOL, LOGGING)
    target = ope.sequential_propensities(ORDER[every], SLOTS, POOL, TARGET)
    before = np.array([joint(tuple(one), POOL, LOGGING) for one in every.tolist()])[:, None]
    rewards = chances(clicks, every)
    for name, weight in ope.weights(logged, target).items():
        found = (before * weight * rewards).sum() / SLOTS
        assert (found == pytest.approx(truth(clicks), rel=1e-9)) == (name in RIGHT[clicks]), name
    q = np.random.default_rng(0).random(POOL)
    pool_items = np.tile(np.argsort(ORDER), (len(every), 1))
    _, above = ope.expected_rewards(q[pool_items], ORDER[every], POOL, TARGET)
    found = (
        before * estimators.cascade(ope.weights(logged, target)["RIPS"], rewards, q[every], above)
    ).sum() / SLOTS
    assert (found == pytest.approx(truth(clicks), rel=1e-9)) == ("Cascade-DR" in RIGHT[clicks])


def test_the_logging_policy_is_estimated_as_observed():
    """With the target equal to the logging policy all weights are 1 and all weighted estimates are what was seen."""
    world = draw("cascade", 300, 1)
    found = judge(world._replace(target=world.log.logged), predicted=None)
    for one in found.values():
        assert one.value == pytest.approx(world.log.reward.mean())
        assert one.max_weight == pytest.approx(1.0)
        assert one.refused is None
    change = ope.difference(found["SN-inclusion"], found["observed"])
    assert (change.value, change.low, change.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.floats(-3, 3))
def test_estimators_that_claim_it_follow_a_shift(seed, shift):
    """V(r + c) = V(r) + c for the self-normalised and the doubly robust ones, with the model refitted; not for IPS."""
    world = draw("independent", 200, seed)
    weight, log = ope.weights(world.log.logged, world.target), world.log

    def values(reward):
        model = predict(
            world._replace(log=log._replace(reward=reward)), np.random.default_rng(seed)
        )
        item = weight["IIPS"]
        top, bottom, slots = (
            (weight["RIPS"] * reward).sum(axis=0),
            weight["RIPS"].sum(axis=0),
            np.full(SLOTS, 200.0),
        )
        return {
            "SN-RIPS": estimators.self_normalised(top, bottom, slots),
            "DM": estimators.direct(model.expected).mean(),
            "DR": estimators.doubly_robust(item, reward, model.shown, model.expected).mean(),
            "Switch-DR": estimators.switch(item, reward, model.shown, model.expected, 1.5).mean(),
            "DRos": estimators.optimistic_shrinkage(
                item, reward, model.shown, model.expected, 2.0
            ).mean(),
            "IPS": estimators.ips(item, reward).mean(),
        }

    straight, moved = values(log.reward), values(log.reward + shift)
    ips, ips_moved = straight.pop("IPS"), moved.pop("IPS")
    for name, value in straight.items():
        assert moved[name] == pytest.approx(value + shift, abs=1e-6), name
    if abs(shift) > 0.1:
        assert abs(ips_moved - ips - shift) > 1e-4


def test_all_clicks_turned_round():
    """V(1 - r) = 1 - V(r) through the front door for every estimator that follows a shift."""
    world = draw("item and position", 500, 5)
    straight = judge(world)
    turned = judge(world._replace(log=world.log._replace(reward=1.0 - world.log.reward)))
    for name in ("SN-SIPS", "SN-RIPS", "SN-IIPS", "SN-inclusion", "DM", "DR", "Switch-DR", "DRos"):
        assert turned[name].value == pytest.approx(1.0 - straight[name].value), name
    assert abs(turned["SIPS"].value - (1.0 - straight["SIPS"].value)) > 1e-3


def test_decisions_that_were_likely_shed_count_for_those_that_are_gone():
    """Of two kinds of users one was shed with probability 3/4: weighed 1/p the mix is as it was before."""
    world = draw("independent", 4000, 3)
    reward = world.log.reward.copy()
    reward[2000:] = 0.0
    kept = np.concatenate([np.arange(2000)[::4], np.arange(2000, 4000)])
    log = ope.Slates(
        reward[kept],
        world.log.judged[kept],
        world.log.group[kept],
        ope.Propensities(*(part[kept] for part in world.log.logged)),
        np.where(kept < 2000, 0.25, 1.0),
    )
    observed = ope.estimates(log, log.logged, np.random.default_rng(0))[0]
    blind = ope.estimates(
        log._replace(survived=np.ones(len(kept))), log.logged, np.random.default_rng(0)
    )[0]
    assert observed.value == pytest.approx(reward.mean(), abs=0.02)
    assert blind.value < 0.6 * reward.mean()


def test_logs_of_two_policies_are_judged_by_their_own_propensities():
    """Half of a log was drawn by another policy; each event's own β gives the truth, one β for all does not."""
    own, blind = [], []
    for seed in range(20):
        one, other = draw("independent", 1000, seed), draw("independent", 1000, seed + 1000)
        ranks = other.items  # drawn by the target's order of items, under the logging policy's ε
        items = np.argsort(ORDER)[ranks]
        reward = (
            np.random.default_rng(seed).random(items.shape) < chances("independent", items)
        ).astype(float)
        target = both(one.target, ope.sequential_propensities(ranks, SLOTS, POOL, TARGET))
        for found, logged in ((own, ranks), (blind, items)):
            log = ope.Slates(
                np.concatenate([one.log.reward, reward]),
                np.ones((2000, SLOTS), bool),
                np.arange(2000) // 20,
                both(one.log.logged, ope.sequential_propensities(logged, SLOTS, POOL, LOGGING)),
                np.ones(2000),
            )
            judged = {e.estimator: e for e in ope.estimates(log, target, np.random.default_rng(0))}
            found.append(judged["IIPS"].value - truth("independent"))
    error = np.std(own, ddof=1) / np.sqrt(len(own))
    assert abs(np.mean(own)) <= 3 * error
    assert abs(np.mean(blind)) > 10 * error


def both(first, second):
    """Return the propensities of two logs as those of one."""
    return ope.Propensities(*(np.concatenate(pair) for pair in zip(first, second, strict=True)))


def test_weights_average_one_over_the_support():
    """E_β[π / β] is 1 for the joint weight, enumerated over all slates."""
    every = np.array(list(itertools.permutations(range(POOL), SLOTS)))
    logged = ope.sequential_propensities(every, SLOTS, POOL, LOGGING)
    target = ope.sequential_propensities(ORDER[every], SLOTS, POOL, TARGET)
    weight = ope.weights(logged, target)["SIPS"][:, 0]
    assert (logged.conditional.prod(axis=1) * weight).sum() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("pool", "own_pool", "epsilon", "own"), [(6, 6, 0.7, 0.5), (6, 5, 0.3, 0.0), (5, 6, 1.0, 0.2)]
)
def test_no_weight_is_above_the_largest_known(pool, own_pool, epsilon, own):
    """Over every slate and order of the target, no weight exceeds what `largest_weights` promises before any log."""
    every = np.array(list(slates(SLOTS, pool)))
    most = ope.largest_weights(SLOTS, (pool, epsilon), (own_pool, own))
    logged = ope.sequential_propensities(every, SLOTS, pool, epsilon)
    seen = dict.fromkeys(most, 0.0)
    for order in itertools.islice(itertools.permutations(range(POOL)), 0, None, 7):
        target = ope.sequential_propensities(np.array(order)[every], SLOTS, own_pool, own)
        for name, weight in ope.weights(logged, target).items():
            seen[name] = max(seen[name], float(weight.max()))
    for name in most:
        assert seen[name] <= most[name] * (1 + 1e-9)
    assert seen["IIPS"] > 0.5 * most["IIPS"]
    assert np.isinf(ope.largest_weights(SLOTS, (pool, 0.0), (pool, own or 0.1))["RIPS"])


def test_unsupported_mass_is_the_share_of_slots_that_the_log_cannot_know():
    """It equals the mass enumerated over all slates of the target, and is 0 when the pools hold the same items."""
    items, known = np.array([[4, 2, 7, 1], [0, 1, 2, 3]]), np.array([[2, 4, 1, 9], [3, 2, 1, 0]])
    found = ope.unsupported_mass(items, known, SLOTS, np.array([4, 4]), TARGET)
    wanted = sum(joint(one, 4, TARGET) * (2 in one) for one in slates(SLOTS, 4)) / SLOTS
    assert found.tolist() == pytest.approx([wanted, 0.0])


def test_propensities_from_ranks_equal_the_draws():
    """Conditional and marginal propensities rebuilt from ranks are those that the draw itself logged."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = sequential.draw(SLOTS, POOL, LOGGING, rng.random((SLOTS, 2)).tolist())
        found = ope.sequential_propensities(np.array([drawn.ranks]), SLOTS, POOL, LOGGING)
        np.testing.assert_allclose(found.conditional[0], drawn.conditional)
        np.testing.assert_allclose(found.marginal[0], drawn.marginal)
        assert (found.inclusion[0] >= found.marginal[0] - 1e-12).all()


def test_propensities_with_guarded_slots_equal_the_draws():
    """With slots in front that never explore, rebuilt propensities are still those that the draw logged."""
    rng, guarded = np.random.default_rng(0), Exploration(epsilon=LOGGING, guarded=1)
    epsilons = np.array([[0.0] + [LOGGING] * (SLOTS - 1)])
    for _ in range(50):
        drawn = schemes.draw(guarded, SLOTS, np.zeros(POOL), rng.random((SLOTS, 2)).tolist())
        found = ope.sequential_propensities(np.array([drawn.ranks]), SLOTS, POOL, epsilons)
        np.testing.assert_allclose(found.conditional[0], drawn.conditional)
        np.testing.assert_allclose(found.marginal[0], list(drawn.marginal))


def test_items_outside_the_targets_pool_have_no_chance():
    """A shown item that the target ranks at or beyond its pool gets probability 0 of every kind."""
    found = ope.sequential_propensities(np.array([[0, 6, 9]]), 3, 6, 0.2)
    for kind in found:
        assert kind[0, 0] > 0
        assert kind[0, 1:].tolist() == [0, 0]


def test_marginals_and_inclusions_equal_enumeration():
    """They are the sums of the joint probability over the slates that show the item there, or anywhere."""
    shown = np.array([[0, 1, 2], [5, 4, 3]])
    found = ope.sequential_propensities(ORDER[shown], SLOTS, POOL, TARGET)
    for place, slot in itertools.product(range(2), range(SLOTS)):
        rank = int(ORDER[shown[place, slot]])
        here = sum(joint(one, POOL, TARGET) for one in slates(SLOTS, POOL) if one[slot] == rank)
        anywhere = sum(joint(one, POOL, TARGET) for one in slates(SLOTS, POOL) if rank in one)
        assert found.marginal[place, slot] == pytest.approx(here)
        assert found.inclusion[place, slot] == pytest.approx(anywhere)


def test_each_decision_may_have_its_own_pool_and_epsilon():
    """Propensities with a pool and an ε per decision are those of each decision alone."""
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


def test_an_estimate_that_rests_on_two_decisions_is_refused():
    """With all weight on 2 of 1,000 decisions the effective sample size is 2, and the estimate is refused for it."""
    target = np.full(1000, 1e-6)
    target[[3, 700]] = 1.0
    found = by_hand(np.arange(1000) % 2, np.full(1000, 0.5), target)
    for name in ("SIPS", "SN-IIPS", "DR", "Cascade-DR", "SN-inclusion"):
        assert found[name].ess == pytest.approx(2.0, rel=0.01)
        assert "effective sample size 2 is below 100" in str(found[name].refused), name


def test_a_target_that_the_log_does_not_support_is_refused():
    """Where half of the target's mass is on slates that were never shown, the mean weight tells, and the mass too."""
    world = draw("independent", 2000, 6)
    half = ope.Propensities(*(0.5 * probability for probability in world.log.logged))
    assert "mean weight" in str(judge(world._replace(target=half))["IIPS"].refused)
    assert judge(world)["IIPS"].refused is None
    told = judge(world, unsupported=0.2)
    assert "20.0% of the target's slots" in str(told["IIPS"].refused)
    assert told["observed"].refused is None


def test_few_groups_are_refused():
    """Decisions of 3 installs, or of many with one that has nearly all, give no interval to rely on."""
    world = draw("independent", 600, 7)
    assert "groups" in str(
        judge(world._replace(log=world.log._replace(group=np.arange(600) % 3)))["IIPS"].refused
    )
    lopsided = np.where(np.arange(600) < 500, 0, np.arange(600))
    assert "groups" in str(
        judge(world._replace(log=world.log._replace(group=lopsided)))["IIPS"].refused
    )


def test_intervals_widen_when_decisions_hang_together():
    """The same decisions four times over are no more evidence when the group tells that they are the same."""
    world = draw("independent", 300, 8)
    log = ope.Slates(
        np.tile(world.log.reward, (4, 1)),
        np.tile(world.log.judged, (4, 1)),
        np.tile(np.arange(300), 4),
        ope.Propensities(*(np.tile(part, (4, 1)) for part in world.log.logged)),
        np.ones(1200),
    )
    target = ope.Propensities(*(np.tile(part, (4, 1)) for part in world.target))

    def width(log, target):
        one = next(
            e for e in ope.estimates(log, target, np.random.default_rng(0)) if e.estimator == "IIPS"
        )
        return one.high - one.low

    once = width(world.log, world.target)
    assert width(log, target) == pytest.approx(once)
    assert width(log._replace(group=np.arange(1200)), target) < 0.6 * once


@pytest.mark.parametrize("bad", [0.0, 1.5, -0.1, np.nan])
@pytest.mark.parametrize("kind", ope.Propensities._fields)
def test_impossible_logged_propensities_are_an_error(bad, kind):
    """A logged propensity of 0, above 1, negative or NaN raises ValueError that names it, of whichever kind it is."""
    world = draw("independent", 40, 10)
    wrong = getattr(world.log.logged, kind).copy()
    wrong[3, 1] = bad
    log = world.log._replace(logged=world.log.logged._replace(**{kind: wrong}))
    with pytest.raises(ValueError, match="1 of 40"):
        ope.estimates(log, world.target, np.random.default_rng(0))


@pytest.mark.parametrize("bad", [-1.0, 2.0, 0.5, np.nan])
def test_rewards_that_are_no_clicks_are_an_error(bad):
    """Rewards of -1, 2, 0.5 or NaN raise ValueError, unless their slot was not judged."""
    world = draw("independent", 40, 3)
    world.log.reward[5, 0] = bad
    with pytest.raises(ValueError, match="click"):
        ope.estimates(world.log, world.target, np.random.default_rng(0))
    world.log.judged[5, 0] = False
    assert all(
        np.isfinite(one.value)
        for one in ope.estimates(world.log, world.target, np.random.default_rng(0))
    )


def test_other_impossible_input_is_an_error():
    """A target above 1, a chance of survival of 0, a negative rank, no judged slot, an empty log raise ValueError."""
    world, rng = draw("independent", 40, 3), np.random.default_rng(0)
    with pytest.raises(ValueError, match="target's conditional"):
        ope.estimates(
            world.log, world.target._replace(conditional=1.0 + world.target.conditional), rng
        )
    with pytest.raises(ValueError, match="survival"):
        ope.estimates(world.log._replace(survived=np.zeros(40)), world.target, rng)
    with pytest.raises(ValueError, match="ranks"):
        ope.sequential_propensities(world.items - 1, SLOTS, POOL, LOGGING)
    with pytest.raises(ValueError, match="judged"):
        ope.estimates(world.log._replace(judged=np.zeros((40, SLOTS), bool)), world.target, rng)
    empty = draw("independent", 0, 3)
    with pytest.raises(ValueError, match="judged"):
        ope.estimates(empty.log, empty.target, rng)


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_constant_rewards_are_refused(constant):
    """When every reward is the same the bootstrap has no width, and the estimates say that it knows none."""
    world = draw("independent", 400, 3)
    found = judge(world._replace(log=world.log._replace(reward=np.full((400, SLOTS), constant))))
    for name in ("observed", "SN-IIPS", "DR"):
        assert "alike" in str(found[name].refused), name
