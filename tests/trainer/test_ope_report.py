"""The report on a candidate: which decisions it judges by, and which it leaves out and why."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from bench.estimation.slate_simulator import (
    LOGGING,
    POOL,
    SLOTS,
    draw_log,
    slates_of,
)
from sanderling.bundle.manifest import Exploration
from sanderling.exploration import schemes
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.evaluation import ope

pytestmark = pytest.mark.lab

BETTER, WORSE = np.array([0, 1, 2, 3, 4, 5]), np.array([5, 4, 3, 2, 1, 0])


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


def orders_of(sample, order=BETTER):
    """Return a function that says what the candidate ranks first at some of the decisions."""
    _, orders = slates_of(sample, order=order, epsilon=0.5)

    def orders_at(decisions):
        rows = decisions.history
        slots = decisions.items.shape[1]
        taken = ope.Orders(*(part[rows] for part in orders))
        return taken._replace(ranks=taken.ranks[:, :slots], epsilon=taken.epsilon[:, :slots])

    return orders_at


def report_of(log, sample, active=ACTIVE):
    """Return the report on the candidate BETTER."""
    rng = np.random.default_rng(0)
    return ope.evaluate_candidate(log, active, orders_of(sample), POOL, rng)


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
    replace_decision(log, 10, SLOTS, POOL, 0.0)
    report = report_of(log, sample)
    counts = {
        reason.split(",")[0].split("(")[0].strip(): count
        for reason, count in report["left_out"].items()
    }
    assert counts == {
        "decided by another release": 1,
        "an item that the lab does not know": 1,
        "drawn without exploration": 1,
        "drawn under caps": 1,
        "rewards with randomized response": 1,
        "no judged slot": 1,
        "a reward that is not 0 or 1": 1,
        "a logged propensity outside": 2,
        "a pool or an ε that the release does not have": 1,
        "propensities that rank": 1,
    }
    assert report["decisions"] == 3000 - 11
    assert report["estimates"][0]["value"] == pytest.approx(sample.log.reward[11:].mean())
    assert (
        report["difference"]["low"] <= report["difference"]["value"] <= report["difference"]["high"]
    )
    assert report["gate"]["verdict"] == ope.SHIP


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
    report = report_of(log, sample, ACTIVE._replace(guarded=1))
    assert report["decisions"] == 200
    assert report["left_out"] == {"propensities that rank, pool and ε do not explain": 200}


def test_slates_with_newcomers_are_judged_without_those_slots():
    """Of slates drawn with a quota for newcomers the other slots are judged, as shorter slates."""
    sample = draw_log("independent", 1000, 1, order=BETTER, epsilon=0.5)
    log, rng = decisions_of(sample), np.random.default_rng(2)
    plan = Exploration(epsilon=LOGGING, guarded=1, newcomers=0.4)
    shown = 0
    for at in range(len(log)):
        uniforms = rng.random((2 * SLOTS, 2)).tolist()
        drawn = schemes.draw(plan, SLOTS, np.zeros(POOL), uniforms, 2)
        log.ranks[at], log.items[at], log.guarded[at] = drawn.ranks, drawn.ranks, plan.guarded
        log.conditional[at], log.marginal[at] = drawn.conditional, drawn.marginal
        log.newcomer[at] = log.ranks[at] >= POOL
        shown += int(log.newcomer[at].sum())
    rate = LOGGING * 0.4
    log.newcomers[:], log.newcomer_rate[:] = 2, rate
    log.epsilon[:] = ope.regular_epsilon(LOGGING, rate)
    active = ACTIVE._replace(guarded=1, newcomers=0.4)
    decisions, slates, left_out = ope.usable(log, active)
    assert left_out == {}
    assert int(slates.lengths.sum()) == 3000 - shown
    assert int(slates.log.judged.sum()) == 3000 - shown
    assert (decisions.items < POOL).all()
    other = active._replace(newcomers=0.2)
    assert ope.usable(log, other)[2] == {"a pool or an ε that the release does not have": 1000}


def test_decisions_with_different_pools_are_evaluated_together():
    """A log in which half of the decisions had one more eligible item is used whole."""
    sample = draw_log("independent", 2000, 1, order=BETTER, epsilon=0.5)
    log = decisions_of(sample)
    larger = np.arange(2000) % 2 == 0
    pool = np.where(larger, POOL + 1, POOL)
    logged = ope.sequential_propensities(sample.items, SLOTS, pool, LOGGING)
    log.pool[:], log.marginal[:], log.conditional[:] = pool, logged.marginal, logged.conditional
    report = report_of(log, sample, ACTIVE._replace(pool=POOL + 1))
    assert report["left_out"] == {}
    assert report["decisions"] == 2000


def test_refused_estimates_have_no_values():
    """Of 60 decisions every weighted estimate is refused: apart, with the reason, no numbers."""
    sample = draw_log("independent", 60, 1, order=WORSE, epsilon=0.5)
    report = report_of(decisions_of(sample), sample)
    rows = {row["estimator"]: row for row in report["refused_estimates"]}
    assert rows["SN-SIPS"]["refused"].startswith("effective sample size")
    assert [rows["SN-SIPS"][name] for name in ("value", "low", "high", "betting")] == [None] * 4
    assert all(row["estimator"] not in rows for row in report["estimates"])
    assert report["difference"] is None
    assert report["gate"]["verdict"] == ope.HOLD
    assert "the log cannot judge it" in report["sentence"]


def test_shorter_slates_count_with_the_slots_that_they_have():
    """A log in which every third slate has two slots is used whole."""
    sample = draw_log("independent", 3000, 1, order=BETTER, epsilon=0.5)
    log = decisions_of(sample)
    short = np.arange(3000) % 3 == 0
    log.slots[short] = 2
    log.items[short, 2], log.ranks[short, 2], log.judged[short, 2] = -1, 0, False
    log.conditional[short, 2] = log.marginal[short, 2] = 1.0
    report = report_of(log, sample)
    assert report["left_out"] == {}
    assert report["decisions"] == 3000
    assert report["gate"]["verdict"] == ope.SHIP
    observed = report["estimates"][0]
    assert observed["value"] == pytest.approx(sample.log.reward[log.judged].mean())


def test_pseudonyms_are_resampled_where_installs_are_few():
    """Two installs with 3,000 pseudonyms are judged by pseudonym, and the report says so."""
    sample = draw_log("independent", 3000, 1, order=BETTER, epsilon=0.5)
    log = replace(decisions_of(sample), group=np.arange(3000) % 2)
    report = report_of(log, sample)
    assert report["resampled"] == "pseudonyms, as there are fewer than 10 installs"
    assert report["units"] == 3000
    installs = report_of(replace(log, group=np.arange(3000) % 40), sample)
    assert (installs["resampled"], installs["units"]) == ("installs", 40)


def test_an_empty_or_unusable_log_is_held():
    """Without a usable decision there are no estimates, and the gate says why it holds."""
    for m in (0, 5):
        sample = draw_log("independent", m, 1)
        report = report_of(decisions_of(sample), sample, ACTIVE._replace(release=2))
        assert report["estimates"] == []
        assert report["gate"]["verdict"] == ope.HOLD
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
        "a hundred slots",
    ],
)
def test_a_forged_decision_is_left_out_and_changes_nothing(forgery):
    """Whatever a device forges, the others are evaluated as if alone, in little time and memory."""
    sample = draw_log("independent", 1000, 1, order=BETTER, epsilon=0.5)
    alone = report_of(decisions_of(sample).take(slice(1, None)), sample)
    log = forged(decisions_of(sample), forgery)
    tracemalloc.start()
    report = report_of(log, sample)
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()
    assert sum(report["left_out"].values()) == 1
    assert report | {"left_out": {}} == alone


def test_longer_slates_are_cut_to_the_usual_length():
    """Where some slates are longer than most, their first slots are used with the others."""
    sample = draw_log("independent", 1000, 1, order=BETTER, epsilon=0.5)
    log = widened(decisions_of(sample), SLOTS + 2)
    for at in range(40):
        left = [item for item in range(POOL) if item not in log.items[at, :SLOTS]]
        log.items[at, SLOTS:] = log.ranks[at, SLOTS:] = left[:2]
    log.slots[:] = np.where(np.arange(1000) < 40, SLOTS + 2, SLOTS)
    longer = ope.sequential_propensities(log.ranks[:40], SLOTS + 2, POOL, LOGGING)
    log.conditional[:40, SLOTS:] = longer.conditional[:, SLOTS:]
    log.marginal[:40, SLOTS:] = longer.marginal[:, SLOTS:]
    short = report_of(decisions_of(sample), sample)
    assert report_of(log, sample) == short
    assert short["left_out"] == {}


def test_no_decision_counts_for_more_than_64():
    """An implausible survival probability does not let one decision outweigh the log."""
    sample = draw_log("independent", 3000, 1, order=BETTER, epsilon=0.5)
    log = decisions_of(sample)
    log.pass_probability[0] = 1e-300
    report = report_of(log, sample)
    assert report["decisions"] == 3000
    assert report["gate"]["verdict"] == ope.SHIP
