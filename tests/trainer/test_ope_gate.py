"""The release gate: it passes a better candidate and holds for each reason alone; and the report around it."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from bench.estimation.slate_worlds import LOGGING, POOL, SLOTS, draw, judge, predict
from sanderling.bundle.manifest import Exploration
from sanderling.exploration import schemes
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.evaluation import ope
from sanderling_trainer.evaluation.ope.aggregation import cut
from sanderling_trainer.evaluation.ope.release_gate import agreement

pytestmark = pytest.mark.lab

BETTER, WORSE = np.array([0, 1, 2, 3, 4, 5]), np.array([5, 4, 3, 2, 1, 0])


def found(clicks="independent", order=BETTER, epsilon=0.5, m=3000, **given):
    """Return the estimates of a candidate on a world's log."""
    world = draw(clicks, m, 1, order=order, epsilon=epsilon)
    given.setdefault(
        "predicted", predict(world, np.random.default_rng(0), order=order, epsilon=epsilon)
    )
    return list(judge(world, **given).values())


def test_a_better_candidate_passes():
    """A candidate that explores less of what is worse passes every check, without a reason."""
    verdict = ope.gate(found(), ope.Thresholds())
    assert verdict.passed
    assert verdict.reasons == []


def test_a_worse_candidate_is_held_for_its_lower_bound():
    """A candidate that turns the order round is held, and the reason is the lower bound of the difference."""
    verdict = ope.gate(found(order=WORSE, epsilon=0.9), ope.Thresholds())
    assert not verdict.passed
    assert any("difference to the serving policy" in reason for reason in verdict.reasons)


def test_the_margin_is_what_may_be_lost():
    """A candidate that loses a little passes with a margin above its lower bound, and is held below it."""
    estimates = found(order=np.array([1, 0, 2, 3, 4, 5]), epsilon=0.7)
    by_name = {one.estimator: one for one in estimates}
    change = ope.difference(by_name["SN-inclusion"], by_name["observed"])
    assert change.low < 0
    share = -change.low / by_name["observed"].value
    assert ope.gate(estimates, ope.Thresholds(margin=1.01 * share)).passed
    assert not ope.gate(estimates, ope.Thresholds(margin=0.99 * share)).passed


def test_unsupported_mass_holds():
    """Any mass on items that the log never shows holds the candidate, however good it looks."""
    assert ope.gate(found(unsupported=0.0), ope.Thresholds()).passed
    verdict = ope.gate(found(unsupported=0.001), ope.Thresholds())
    assert verdict.reasons == [
        next(reason for reason in verdict.reasons if "unsupported mass: 0.100%" in reason)
    ]


def test_too_small_an_effective_sample_holds():
    """The same candidate on 90 slates is held for its effective sample size, and so is one below a stricter bound."""
    assert any(
        "effective sample size" in reason
        for reason in ope.gate(found(m=90), ope.Thresholds()).reasons
    )
    strict = ope.gate(found(), ope.Thresholds(ess=1e6))
    assert [reason.split(" is below")[0][:21] for reason in strict.reasons] == [
        "effective sample size"
    ]


def test_a_mean_weight_off_one_holds():
    """Propensities that do not belong to the log show in the mean weight, and hold the candidate."""
    world = draw("independent", 3000, 1, order=BETTER, epsilon=0.5)
    wrong = world.log.logged._replace(inclusion=np.minimum(1.0, 1.2 * world.log.logged.inclusion))
    estimates = list(judge(world._replace(log=world.log._replace(logged=wrong))).values())
    assert any("mean weight" in reason for reason in ope.gate(estimates, ope.Thresholds()).reasons)


def test_estimators_that_disagree_hold():
    """Where users click by what stands below, the families differ beyond 3 standard errors, and the gate says which."""
    assert agreement(found("independent", np.array([1, 0, 3, 4, 5, 2]), m=6000), 3.0) == []
    reasons = agreement(found("whole slate", np.array([1, 0, 3, 4, 5, 2]), m=6000), 3.0)
    assert reasons
    assert all("an assumption does not hold" in reason for reason in reasons)


def test_one_estimator_alone_confirms_nothing():
    """With every other estimator refused the gate holds, since nothing agrees with the primary one."""
    alone = [
        one
        if one.estimator in ("observed", "SN-inclusion")
        else replace(one, refused="bad weights")
        for one in found()
    ]
    verdict = ope.gate(alone, ope.Thresholds())
    assert len(verdict.reasons) == 1
    assert "fewer than two estimators" in verdict.reasons[0]
    assert not ope.gate([], ope.Thresholds()).passed


def decisions_of(world) -> Decisions:
    """Return a world's log as devices' decisions."""
    m = len(world.items)
    return Decisions(
        history=np.arange(m),
        position=np.zeros(m, np.int64),
        items=world.items.copy(),
        logged=world.log.logged.marginal.copy(),
        conditional=world.log.logged.conditional.copy(),
        reward=np.where(world.log.reward > 0, 1.0, -1.0).astype(np.float32),
        judged=world.log.judged.copy(),
        context=np.full(m, -1),
        ranks=world.items.copy(),
        group=world.log.group,
        release=np.ones(m, np.int64),
        pool=np.full(m, POOL),
        eligible=np.full(m, POOL),
        epsilon=np.full(m, LOGGING),
    )


SERVING = ope.ServingPolicy(1, POOL, LOGGING)


def candidate_of(world, unsupported=0.0):
    """Return a function that says what the candidate does at some of a world's decisions."""
    m = len(world.items)
    predicted = predict(world, np.random.default_rng(0), order=BETTER, epsilon=0.5)
    all_of_it = ope.Candidate(
        world.target, predicted, np.full(m, unsupported), np.full(m, POOL), 0.5
    )
    return lambda decisions: ope.Candidate(
        *(cut(part, decisions.history) for part in all_of_it[:4]), 0.5
    )


def test_the_report_counts_what_it_leaves_out_and_why():
    """Each kind of unusable decision is left out once, under its own reason, and the rest is judged as if alone."""
    world = draw("independent", 3000, 1, order=BETTER, epsilon=0.5)
    log = decisions_of(world)
    log.release[0] = 7
    log.items[1, 2] = -1
    log.judged[2] = False
    log.reward[3, 0] = np.nan
    log.logged[4, 1] = 0.0
    log.conditional[5, 0] = 1.5
    log.conditional[6, 0] *= 0.9
    log.epsilon[7] = 0.2
    log.capped[8] = True
    log.flip_probability[9] = 0.1
    told = ope.report(log, SERVING, candidate_of(world), np.random.default_rng(0))
    counts = {
        reason.split(",")[0].split("(")[0].strip(): count
        for reason, count in told["left_out"].items()
    }
    assert counts == {
        "decided by another release": 1,
        "a short slate": 1,
        "drawn under caps": 1,
        "rewards told with randomised response": 1,
        "no judged slot": 1,
        "a reward that is no click in {0": 1,
        "a logged propensity that is not in": 2,
        "a pool or an ε that the release does not have": 1,
        "propensities that rank": 1,
    }
    assert told["decisions"] == 3000 - 10
    assert told["estimates"][0]["value"] == pytest.approx(world.log.reward[10:].mean())
    assert told["difference"]["low"] <= told["difference"]["value"] <= told["difference"]["high"]
    assert told["gate"]["passed"]


def test_logs_with_guarded_slots_are_judged_and_those_of_other_schemes_left_out():
    """Guarded slots are understood, as the wire says how many there are; slates of `mixture` never pass for others."""
    world = draw("independent", 400, 1, order=BETTER, epsilon=0.5)
    log, rng = decisions_of(world), np.random.default_rng(2)
    plans = [Exploration(epsilon=LOGGING, guarded=1), Exploration("mixture", LOGGING)]
    for at in range(len(log)):
        plan = plans[at % 2]
        drawn = schemes.draw(plan, SLOTS, np.zeros(POOL), rng.random((SLOTS, 2)).tolist())
        log.ranks[at], log.items[at], log.guarded[at] = drawn.ranks, drawn.ranks, plan.guarded
        log.conditional[at], log.logged[at] = drawn.conditional, drawn.marginal
    told = ope.report(log, SERVING, candidate_of(world), np.random.default_rng(0))
    assert told["decisions"] == 200
    assert told["left_out"] == {"propensities that rank, pool and ε do not explain": 200}


def test_decisions_with_pools_of_their_own_are_judged_together():
    """A log in which half of the decisions had one more eligible item is judged whole, not half of it left out."""
    world = draw("independent", 2000, 1, order=BETTER, epsilon=0.5)
    log = decisions_of(world)
    larger = np.arange(2000) % 2 == 0
    pool = np.where(larger, POOL + 1, POOL)
    logged = ope.sequential_propensities(world.items, SLOTS, pool, LOGGING)
    log.pool[:], log.logged[:], log.conditional[:] = pool, logged.marginal, logged.conditional
    told = ope.report(
        log, SERVING._replace(pool=POOL + 1), candidate_of(world), np.random.default_rng(0)
    )
    assert told["left_out"] == {}
    assert told["decisions"] == 2000


def test_what_is_refused_is_not_reported():
    """Of 60 decisions every weighted estimate is refused: the rows say why and give neither value nor interval."""
    world = draw("independent", 60, 1, order=WORSE, epsilon=0.5)
    told = ope.report(decisions_of(world), SERVING, candidate_of(world), np.random.default_rng(0))
    rows = {row["estimator"]: row for row in told["estimates"] if row["policy"] == "candidate"}
    assert rows["SN-SIPS"]["refused"].startswith("effective sample size")
    assert [rows["SN-SIPS"][name] for name in ("value", "low", "high", "betting")] == [None] * 4
    assert told["difference"]["value"] is None
    assert not told["gate"]["passed"]


def test_an_empty_or_unusable_log_is_held_not_judged():
    """No decision, or none that can be used, gives no estimates, and the gate says why it holds."""
    for m in (0, 5):
        world = draw("independent", m, 1)
        told = ope.report(
            decisions_of(world),
            SERVING._replace(release=2),
            candidate_of(world),
            np.random.default_rng(0),
        )
        assert told["estimates"] == []
        assert not told["gate"]["passed"]
        assert "at least one usable decision" in told["gate"]["reasons"][0]


def widened(log: Decisions, slots: int) -> Decisions:
    """Return a log whose columns are as wide as so many slots, which its slates do not have."""
    more, fills = (
        ((0, 0), (0, slots - log.items.shape[1])),
        {"items": -1, "logged": 1.0, "conditional": 1.0},
    )
    columns = {
        name: np.pad(column, more, constant_values=fills.get(name, 0))
        for name, column in vars(log).items()
        if column.ndim == 2
    }
    return replace(log, **columns)


def put(log: Decisions, at: int, slots: int, pool: int, epsilon: float) -> None:
    """Make of a decision a greedy-looking one of so many slots that its own pool and ε explain."""
    ranks = np.arange(slots)[None]
    made = ope.sequential_propensities(ranks, slots, pool, epsilon)
    log.items[at, :slots] = log.ranks[at, :slots] = ranks[0]
    log.logged[at, :slots], log.conditional[at, :slots] = made.marginal[0], made.conditional[0]
    log.slots[at], log.pool[at], log.eligible[at], log.epsilon[at] = slots, pool, pool, epsilon


def hostile(log: Decisions, how: str) -> Decisions:
    """Return a log whose first decision is made up."""
    if how == "a huge pool":
        log.pool[0] = log.eligible[0] = 2 * 10**8
    if how == "a pool that no array has":
        log.pool[0] = log.eligible[0] = 2**53
    if how == "an exploration that never explores":
        put(log, 0, SLOTS, POOL, 1e-300)
    if how == "one slot":
        put(log, 0, 1, POOL, LOGGING)
        log.items[0, 1:] = -1
    if how == "a hundred slots":
        log = widened(log, 100)
        put(log, 0, 100, 100, LOGGING)
        log.items[0, 0] = -1
    return log


@pytest.mark.parametrize(
    "how",
    [
        "a huge pool",
        "a pool that no array has",
        "an exploration that never explores",
        "one slot",
        "a hundred slots",
    ],
)
def test_one_odd_decision_is_left_out_and_changes_nothing(how):
    """Whatever pool, ε or slate one device makes up, the others are judged as if alone, in little time and memory."""
    world = draw("independent", 1000, 1, order=BETTER, epsilon=0.5)
    alone = ope.report(
        decisions_of(world).take(slice(1, None)),
        SERVING,
        candidate_of(world),
        np.random.default_rng(0),
    )
    log = hostile(decisions_of(world), how)
    tracemalloc.start()
    told = ope.report(log, SERVING, candidate_of(world), np.random.default_rng(0))
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()
    assert sum(told["left_out"].values()) == 1
    assert told | {"left_out": {}} == alone


def test_longer_slates_are_judged_in_the_slots_that_most_have():
    """Where some slates are longer than most, their first slots are judged with the others."""
    world = draw("independent", 1000, 1, order=BETTER, epsilon=0.5)
    log = widened(decisions_of(world), SLOTS + 2)
    for at in range(50):
        left = [item for item in range(POOL) if item not in log.items[at, :SLOTS]]
        log.items[at, SLOTS:] = log.ranks[at, SLOTS:] = left[:2]
    log.slots[:] = np.where(np.arange(1000) < 50, SLOTS + 2, SLOTS)
    short = ope.report(decisions_of(world), SERVING, candidate_of(world), np.random.default_rng(0))
    assert ope.report(log, SERVING, candidate_of(world), np.random.default_rng(0)) == short
    assert short["left_out"] == {}


def test_no_decision_is_judged_like_more_than_64():
    """A survival that nobody would believe does not make one decision the whole log."""
    world = draw("independent", 3000, 1, order=BETTER, epsilon=0.5)
    log = decisions_of(world)
    log.survived[0] = 1e-300
    told = ope.report(log, SERVING, candidate_of(world), np.random.default_rng(0))
    assert told["decisions"] == 3000
    assert told["gate"]["passed"]
