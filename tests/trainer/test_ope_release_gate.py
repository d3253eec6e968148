"""The release gate passes a better candidate and holds for each reason; the report around it."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from bench.estimation.slate_simulator import LOGGING, POOL, SLOTS, draw_log, estimates_of, predict
from sanderling.bundle.manifest import Exploration
from sanderling.exploration import schemes
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.evaluation import ope
from sanderling_trainer.evaluation.ope.aggregation import take_rows
from sanderling_trainer.evaluation.ope.release_gate import disagreements

pytestmark = pytest.mark.lab

BETTER, WORSE = np.array([0, 1, 2, 3, 4, 5]), np.array([5, 4, 3, 2, 1, 0])


def estimates(clicks="independent", order=BETTER, epsilon=0.5, m=3000, **options):
    """Return the estimates of a candidate on a simulated log."""
    sample = draw_log(clicks, m, 1, order=order, epsilon=epsilon)
    options.setdefault(
        "predicted", predict(sample, np.random.default_rng(0), order=order, epsilon=epsilon)
    )
    return list(estimates_of(sample, **options).values())


def test_a_better_candidate_passes():
    """A candidate that shows less of what is worse passes every check, without a reason."""
    verdict = ope.gate(estimates(), ope.GateThresholds())
    assert verdict.passed
    assert verdict.reasons == []


def test_a_worse_candidate_is_blocked_for_its_lower_bound():
    """A candidate that reverses the order is blocked for the lower bound of the difference."""
    verdict = ope.gate(estimates(order=WORSE, epsilon=0.9), ope.GateThresholds())
    assert not verdict.passed
    assert any("difference to the active policy" in reason for reason in verdict.reasons)


def test_the_margin_is_what_may_be_lost():
    """A slightly worse candidate passes with a margin beyond its lower bound, and not below it."""
    results = estimates(order=np.array([1, 0, 2, 3, 4, 5]), epsilon=0.7)
    by_name = {one.estimator: one for one in results}
    change = ope.difference(by_name["SN-inclusion"], by_name["observed"])
    assert change.low < 0
    share = -change.low / by_name["observed"].value
    assert ope.gate(results, ope.GateThresholds(margin=1.01 * share)).passed
    assert not ope.gate(results, ope.GateThresholds(margin=0.99 * share)).passed


def test_unsupported_mass_holds():
    """Any mass on items that the log never shows holds the candidate, however good it looks."""
    assert ope.gate(estimates(unsupported=0.0), ope.GateThresholds()).passed
    verdict = ope.gate(estimates(unsupported=0.001), ope.GateThresholds())
    assert verdict.reasons == [
        next(reason for reason in verdict.reasons if "unsupported mass: 0.100%" in reason)
    ]


def test_too_small_an_effective_sample_holds():
    """The candidate is held on 90 slates, and on 3,000 under a stricter threshold."""
    assert any(
        "effective sample size" in reason
        for reason in ope.gate(estimates(m=90), ope.GateThresholds()).reasons
    )
    strict = ope.gate(estimates(), ope.GateThresholds(min_ess=1e6))
    assert [reason.split(" is below")[0][:21] for reason in strict.reasons] == [
        "effective sample size"
    ]


def test_a_mean_weight_off_one_holds():
    """Propensities that do not belong to the log show in the mean weight."""
    sample = draw_log("independent", 3000, 1, order=BETTER, epsilon=0.5)
    wrong = sample.log.logged._replace(inclusion=np.minimum(1.0, 1.2 * sample.log.logged.inclusion))
    results = list(estimates_of(sample._replace(log=sample.log._replace(logged=wrong))).values())
    assert any(
        "mean weight" in reason for reason in ope.gate(results, ope.GateThresholds()).reasons
    )


def test_estimators_that_disagree_hold():
    """Where clicks depend on the slot below, the families differ and the gate says which."""
    assert disagreements(estimates("independent", np.array([1, 0, 3, 4, 5, 2]), m=6000), 3.0) == []
    reasons = disagreements(estimates("whole slate", np.array([1, 0, 3, 4, 5, 2]), m=6000), 3.0)
    assert reasons
    assert all("an assumption does not hold" in reason for reason in reasons)


def test_one_estimator_alone_confirms_nothing():
    """With every other estimator refused the gate holds, since nothing confirms the primary one."""
    alone = [
        one
        if one.estimator in ("observed", "SN-inclusion")
        else replace(one, refused="bad weights")
        for one in estimates()
    ]
    verdict = ope.gate(alone, ope.GateThresholds())
    assert len(verdict.reasons) == 1
    assert "fewer than two estimators" in verdict.reasons[0]
    assert not ope.gate([], ope.GateThresholds()).passed


def decisions_of(sample) -> Decisions:
    """Return a simulated log as devices' decisions."""
    m = len(sample.items)
    return Decisions(
        history=np.arange(m),
        position=np.zeros(m, np.int64),
        items=sample.items.copy(),
        marginal=sample.log.logged.marginal.copy(),
        conditional=sample.log.logged.conditional.copy(),
        reward=np.where(sample.log.reward > 0, 1.0, -1.0).astype(np.float32),
        judged=sample.log.judged.copy(),
        context=np.full(m, -1),
        ranks=sample.items.copy(),
        group=sample.log.group,
        release=np.ones(m, np.int64),
        pool=np.full(m, POOL),
        eligible=np.full(m, POOL),
        epsilon=np.full(m, LOGGING),
    )


ACTIVE = ope.ActivePolicy(1, POOL, LOGGING)


def candidate_of(sample, unsupported=0.0):
    """Return a function that says what the candidate does at some of the decisions."""
    m = len(sample.items)
    predicted = predict(sample, np.random.default_rng(0), order=BETTER, epsilon=0.5)
    candidate = ope.Candidate(
        sample.target, predicted, np.full(m, unsupported), np.full(m, POOL), 0.5
    )
    return lambda decisions: ope.Candidate(
        *(take_rows(part, decisions.history) for part in candidate[:4]), 0.5
    )


def test_the_report_counts_what_it_leaves_out_and_why():
    """Each unusable decision counts once, under its reason; the rest is evaluated as if alone."""
    sample = draw_log("independent", 3000, 1, order=BETTER, epsilon=0.5)
    log = decisions_of(sample)
    log.release[0] = 7
    log.items[1, 2] = -1
    log.judged[2] = False
    log.reward[3, 0] = np.nan
    log.marginal[4, 1] = 0.0
    log.conditional[5, 0] = 1.5
    log.conditional[6, 0] *= 0.9
    log.epsilon[7] = 0.2
    log.capped[8] = True
    log.flip_probability[9] = 0.1
    report = ope.evaluate_candidate(log, ACTIVE, candidate_of(sample), np.random.default_rng(0))
    counts = {
        reason.split(",")[0].split("(")[0].strip(): count
        for reason, count in report["left_out"].items()
    }
    assert counts == {
        "decided by another release": 1,
        "a short slate": 1,
        "drawn under caps": 1,
        "rewards with randomized response": 1,
        "no judged slot": 1,
        "a reward that is not 0 or 1": 1,
        "a logged propensity outside": 2,
        "a pool or an ε that the release does not have": 1,
        "propensities that rank": 1,
    }
    assert report["decisions"] == 3000 - 10
    assert report["estimates"][0]["value"] == pytest.approx(sample.log.reward[10:].mean())
    assert (
        report["difference"]["low"] <= report["difference"]["value"] <= report["difference"]["high"]
    )
    assert report["gate"]["passed"]


def test_guarded_slots_are_evaluated_and_other_schemes_left_out():
    """The wire says how many slots are guarded; slates of `mixture` are recognized and left out."""
    sample = draw_log("independent", 400, 1, order=BETTER, epsilon=0.5)
    log, rng = decisions_of(sample), np.random.default_rng(2)
    plans = [Exploration(epsilon=LOGGING, guarded=1), Exploration("mixture", LOGGING)]
    for at in range(len(log)):
        plan = plans[at % 2]
        drawn = schemes.draw(plan, SLOTS, np.zeros(POOL), rng.random((SLOTS, 2)).tolist())
        log.ranks[at], log.items[at], log.guarded[at] = drawn.ranks, drawn.ranks, plan.guarded
        log.conditional[at], log.marginal[at] = drawn.conditional, drawn.marginal
    active = ACTIVE._replace(guarded=1)
    report = ope.evaluate_candidate(log, active, candidate_of(sample), np.random.default_rng(0))
    assert report["decisions"] == 200
    assert report["left_out"] == {"propensities that rank, pool and ε do not explain": 200}


def test_decisions_with_different_pools_are_evaluated_together():
    """A log in which half of the decisions had one more eligible item is used whole."""
    sample = draw_log("independent", 2000, 1, order=BETTER, epsilon=0.5)
    log = decisions_of(sample)
    larger = np.arange(2000) % 2 == 0
    pool = np.where(larger, POOL + 1, POOL)
    logged = ope.sequential_propensities(sample.items, SLOTS, pool, LOGGING)
    log.pool[:], log.marginal[:], log.conditional[:] = pool, logged.marginal, logged.conditional
    report = ope.evaluate_candidate(
        log, ACTIVE._replace(pool=POOL + 1), candidate_of(sample), np.random.default_rng(0)
    )
    assert report["left_out"] == {}
    assert report["decisions"] == 2000


def test_refused_estimates_have_no_values():
    """Of 60 decisions every weighted estimate is refused: rows give the reason but no numbers."""
    sample = draw_log("independent", 60, 1, order=WORSE, epsilon=0.5)
    report = ope.evaluate_candidate(
        decisions_of(sample), ACTIVE, candidate_of(sample), np.random.default_rng(0)
    )
    rows = {row["estimator"]: row for row in report["estimates"] if row["policy"] == "candidate"}
    assert rows["SN-SIPS"]["refused"].startswith("effective sample size")
    assert [rows["SN-SIPS"][name] for name in ("value", "low", "high", "betting")] == [None] * 4
    assert report["difference"]["value"] is None
    assert not report["gate"]["passed"]


def test_an_empty_or_unusable_log_is_held():
    """Without a usable decision there are no estimates, and the gate says why it holds."""
    for m in (0, 5):
        sample = draw_log("independent", m, 1)
        report = ope.evaluate_candidate(
            decisions_of(sample),
            ACTIVE._replace(release=2),
            candidate_of(sample),
            np.random.default_rng(0),
        )
        assert report["estimates"] == []
        assert not report["gate"]["passed"]
        assert "at least one usable decision" in report["gate"]["reasons"][0]


def widened(log: Decisions, slots: int) -> Decisions:
    """Return a log whose columns are wider than its slates."""
    more, fills = (
        ((0, 0), (0, slots - log.items.shape[1])),
        {"items": -1, "marginal": 1.0, "conditional": 1.0},
    )
    columns = {
        name: np.pad(column, more, constant_values=fills.get(name, 0))
        for name, column in vars(log).items()
        if column.ndim == 2
    }
    return replace(log, **columns)


def replace_decision(log: Decisions, at: int, slots: int, pool: int, epsilon: float) -> None:
    """Replace a decision by a greedy slate that its own pool and ε explain."""
    ranks = np.arange(slots)[None]
    propensities = ope.sequential_propensities(ranks, slots, pool, epsilon)
    log.items[at, :slots] = log.ranks[at, :slots] = ranks[0]
    log.marginal[at, :slots], log.conditional[at, :slots] = (
        propensities.marginal[0],
        propensities.conditional[0],
    )
    log.slots[at], log.pool[at], log.eligible[at], log.epsilon[at] = slots, pool, pool, epsilon


def forged(log: Decisions, forgery: str) -> Decisions:
    """Return a log whose first decision is forged."""
    if forgery == "a huge pool":
        log.pool[0] = log.eligible[0] = 2 * 10**8
    if forgery == "a pool that no array has":
        log.pool[0] = log.eligible[0] = 2**53
    if forgery == "an exploration that never explores":
        replace_decision(log, 0, SLOTS, POOL, 1e-300)
    if forgery == "one slot":
        replace_decision(log, 0, 1, POOL, LOGGING)
        log.items[0, 1:] = -1
    if forgery == "a hundred slots":
        log = widened(log, 100)
        replace_decision(log, 0, 100, 100, LOGGING)
        log.items[0, 0] = -1
    return log


@pytest.mark.parametrize(
    "forgery",
    [
        "a huge pool",
        "a pool that no array has",
        "an exploration that never explores",
        "one slot",
        "a hundred slots",
    ],
)
def test_a_forged_decision_is_left_out_and_changes_nothing(forgery):
    """Whatever a device forges, the others are evaluated as if alone, in little time and memory."""
    sample = draw_log("independent", 1000, 1, order=BETTER, epsilon=0.5)
    alone = ope.evaluate_candidate(
        decisions_of(sample).take(slice(1, None)),
        ACTIVE,
        candidate_of(sample),
        np.random.default_rng(0),
    )
    log = forged(decisions_of(sample), forgery)
    tracemalloc.start()
    report = ope.evaluate_candidate(log, ACTIVE, candidate_of(sample), np.random.default_rng(0))
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()
    assert sum(report["left_out"].values()) == 1
    assert report | {"left_out": {}} == alone


def test_longer_slates_are_cut_to_the_usual_length():
    """Where some slates are longer than most, their first slots are used with the others."""
    sample = draw_log("independent", 1000, 1, order=BETTER, epsilon=0.5)
    log = widened(decisions_of(sample), SLOTS + 2)
    for at in range(50):
        left = [item for item in range(POOL) if item not in log.items[at, :SLOTS]]
        log.items[at, SLOTS:] = log.ranks[at, SLOTS:] = left[:2]
    log.slots[:] = np.where(np.arange(1000) < 50, SLOTS + 2, SLOTS)
    longer = ope.sequential_propensities(log.ranks[:50], SLOTS + 2, POOL, LOGGING)
    log.conditional[:50, SLOTS:] = longer.conditional[:, SLOTS:]
    log.marginal[:50, SLOTS:] = longer.marginal[:, SLOTS:]
    short = ope.evaluate_candidate(
        decisions_of(sample), ACTIVE, candidate_of(sample), np.random.default_rng(0)
    )
    assert (
        ope.evaluate_candidate(log, ACTIVE, candidate_of(sample), np.random.default_rng(0)) == short
    )
    assert short["left_out"] == {}


def test_no_decision_counts_for_more_than_64():
    """An implausible survival probability does not let one decision outweigh the log."""
    sample = draw_log("independent", 3000, 1, order=BETTER, epsilon=0.5)
    log = decisions_of(sample)
    log.pass_probability[0] = 1e-300
    report = ope.evaluate_candidate(log, ACTIVE, candidate_of(sample), np.random.default_rng(0))
    assert report["decisions"] == 3000
    assert report["gate"]["passed"]
