"""The release gate ships, tries or holds for each reason, and says so in one sentence."""

from __future__ import annotations

import numpy as np
import pytest

from bench.estimation.slate_simulator import (
    LOGGING,
    POOL,
    SLOTS,
    draw_log,
    slates_of,
    true_value,
)
from sanderling_trainer.evaluation import ope
from sanderling_trainer.evaluation.ope.relative_difference import contradictions
from sanderling_trainer.evaluation.ope.sentence import sentence

pytestmark = pytest.mark.lab

BETTER, WORSE = np.array([0, 1, 2, 3, 4, 5]), np.array([5, 4, 3, 2, 1, 0])


def judged(clicks="independent", order=BETTER, epsilon=0.5, m=3000, **options):
    """Return the judgement of a candidate on a simulated log; `options` replace parts of it."""
    sample = draw_log(clicks, m, 1, order=order, epsilon=epsilon)
    slates, orders = slates_of(sample, order=order, epsilon=epsilon)
    slates = slates._replace(log=slates.log._replace(**options))
    return ope.judge(slates, orders, POOL, np.random.default_rng(0))


def verdict_of(clicks="independent", order=BETTER, epsilon=0.5, m=3000, **thresholds):
    """Return the verdict on a candidate by a simulated log."""
    sums = judged(clicks, order, epsilon, m).sums
    return ope.gate(sums, m, ope.GateThresholds(**thresholds))


def test_a_better_candidate_ships():
    """A candidate that shows less of what is worse passes every check, without a reason."""
    verdict = verdict_of()
    assert verdict.verdict == ope.SHIP
    assert verdict.reasons == []


def test_a_worse_candidate_is_held():
    """A candidate that reverses the order is held because harm is likely."""
    verdict = verdict_of(order=WORSE, epsilon=0.9)
    assert verdict.verdict == ope.HOLD
    assert verdict.is_sound
    assert "harm is likely" in verdict.reasons[0]


def test_the_active_policy_itself_ships_and_is_never_better():
    """Against itself every weight is 1: the difference and its error are exactly 0."""
    sums = judged(order=np.arange(POOL), epsilon=LOGGING).sums
    change = ope.relative_difference(sums, "PBM", 3000)
    assert (change.low, change.value, change.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
    assert change.error == pytest.approx(0.0, abs=1e-12)
    assert ope.gate(sums, 3000).verdict == ope.SHIP


def test_the_margin_is_what_may_be_lost():
    """A slightly worse candidate ships with a margin beyond its lower bound, and not below it."""
    sums = judged(order=np.array([1, 0, 2, 3, 4, 5]), epsilon=0.7).sums
    change = ope.relative_difference(sums, "PBM", 3000)
    bound = change.low - 2.33 * change.error
    assert bound < 0
    wide = ope.GateThresholds(margin=-1.01 * bound)
    narrow = ope.GateThresholds(margin=-0.98 * bound)
    assert ope.gate(sums, 3000, wide).verdict == ope.SHIP
    assert ope.gate(sums, 3000, narrow).verdict != ope.SHIP


@pytest.mark.parametrize(
    ("value", "error", "wanted"),
    [
        (0.00, 0.020, ope.SHIP),
        (0.06, 0.040, ope.SHIP),
        (0.00, 0.040, ope.CANARY),
        (-0.03, 0.010, ope.CANARY),
        (0.00, float("nan"), ope.CANARY),
        (-0.04, 0.020, ope.HOLD),
        (-0.01, 0.050, ope.HOLD),
        (0.001, 0.050, ope.CANARY),
    ],
)
def test_the_two_thresholds_follow_from_the_error(monkeypatch, value, error, wanted):
    """Ships above -5 % + 2.33 errors, holds below min(0, -5 % + 1.28 errors), else tries."""
    sums = judged().sums
    change = ope.RelativeDifference("PBM", value, value, value, error, 1000.0)
    place = "sanderling_trainer.evaluation.ope.release_gate.relative_difference"
    monkeypatch.setattr(place, lambda *_: change)
    assert ope.gate(sums, 3000).verdict == wanted


def test_unsupported_mass_is_a_bound_and_no_reason(monkeypatch):
    """What the log never shows widens the bounds by what the check allows, and holds nothing."""
    sums = judged(m=6000).sums
    none = ope.relative_difference(sums, "PBM", 6000)
    assert none.low == none.value == none.high
    clicks = float(sums.clicks.sum())
    more = sums._replace(
        unsupported_model=sums.unsupported_model + np.array([0.02, 0.0]) * sums.clicks[:, None],
        unsupported_slots=sums.unsupported_slots + np.array([0.05, 0.0]) * sums.clicks[:, None],
        checked_clicks=np.full_like(sums.checked_clicks, 100.0 / len(sums.clicks)),
        checked_model=np.full_like(sums.checked_model, 125.0 / len(sums.clicks)),
    )
    some = ope.relative_difference(more, "PBM", 6000)
    # Poisson bounds of 100 clicks are 84.1 and 118.1; the lower one counts by half.
    assert some.low - none.low == pytest.approx(0.02 * 0.5 * 0.841 / 1.25, rel=1e-3)
    assert some.high - none.high == pytest.approx(0.02 * 1.181 / 1.25, rel=1e-3)
    unchecked = more._replace(
        checked_clicks=np.zeros_like(sums.checked_clicks),
        checked_model=np.zeros_like(sums.checked_model),
    )
    widest = ope.relative_difference(unchecked, "PBM", 6000)
    assert widest.low == none.low
    assert widest.high - none.high == pytest.approx(0.05)
    assert clicks > 0


def test_harm_by_unsupported_items_alone_does_not_hold():
    """A candidate that could win where nothing is known is tried, not held."""
    sums = judged(order=WORSE, epsilon=0.9).sums
    assert ope.gate(sums, 3000).verdict == ope.HOLD
    unknown = sums._replace(
        unsupported_slots=sums.unsupported_slots + sums.clicks[:, None],
        unsupported_model=sums.unsupported_model + sums.clicks[:, None],
        checked_clicks=np.zeros_like(sums.checked_clicks),
        checked_model=np.zeros_like(sums.checked_model),
    )
    assert ope.gate(unknown, 3000).verdict == ope.CANARY


def test_too_small_an_effective_sample_does_not_ship():
    """Under a stricter threshold the same candidate is tried on a few devices first."""
    strict = verdict_of(min_ess=1e6)
    assert strict.verdict == ope.CANARY
    assert [reason.split(" is ")[0] for reason in strict.reasons] == ["the effective sample"]


def test_a_log_that_cannot_judge_holds():
    """Too few decisions or units, or no click, hold whatever the estimate is."""
    assert "fewer than 100" in verdict_of(m=90).reasons[0]
    few = judged(m=3000, group=np.arange(3000) % 9).sums
    assert "fewer than 10" in ope.gate(few, 3000).reasons[0]
    silent = judged(m=3000, reward=np.zeros((3000, SLOTS))).sums
    verdict = ope.gate(silent, 3000)
    assert "no click" in verdict.reasons[0]
    assert not verdict.is_sound
    assert verdict.verdict == ope.HOLD


def test_a_mean_weight_off_its_expectation_holds():
    """Ranks that do not belong to the log show in the mean weight."""
    sample = draw_log("independent", 3000, 1, order=BETTER, epsilon=0.5)
    slates, orders = slates_of(sample, order=WORSE, epsilon=0.5)
    wrong = orders._replace(ranks=np.minimum(orders.ranks, 1))
    sums = ope.judge(slates, wrong, POOL, np.random.default_rng(0)).sums
    assert any("mean weight" in reason for reason in ope.gate(sums, 3000).reasons)


def test_estimators_that_contradict_hold():
    """Where clicks depend on the slot below, weaker assumptions give another difference."""
    order = np.array([1, 0, 3, 4, 5, 2])
    assert contradictions(judged("independent", order, m=6000).sums, "PBM", 6000, 400.0, 4.0) == []
    sums = judged("whole slate", order, m=6000).sums
    reasons = contradictions(sums, "PBM", 6000, 400.0, 4.0)
    assert reasons
    assert all("more than item and slot" in reason for reason in reasons)
    assert ope.gate(sums, 6000).verdict == ope.HOLD
    assert contradictions(sums, "PBM", 6000, 1e9, 4.0) == []


@pytest.mark.parametrize("clicks", ["independent", "item and position"])
def test_the_interval_holds_the_truth(clicks):
    """Over 60 logs of 500 installs the 95 % interval holds the enumerated difference."""
    order = np.array([1, 0, 3, 4, 5, 2])
    base = true_value(clicks, np.arange(POOL), LOGGING)
    truth = true_value(clicks, order, 0.5) / base - 1.0
    inside = 0
    for seed in range(60):
        sample = draw_log(clicks, 2000, seed, order=order, epsilon=0.5, group=np.arange(2000) // 4)
        slates, orders = slates_of(sample, order=order, epsilon=0.5)
        sums = ope.judge(slates, orders, POOL, np.random.default_rng(seed)).sums
        change = ope.relative_difference(sums, "PBM", 2000)
        inside += abs(change.value - truth) <= 1.96 * change.error
    assert inside >= 52


def test_the_sentence_says_what_happens_and_why():
    """One sentence for each verdict, with the interval in per cent and the evidence."""
    counts = {"decisions": 20113, "units": 412, "resampled": "installs"}
    change = {"low": -0.012, "high": 0.081}
    assert sentence(ope.GateResult(ope.SHIP, []), change, 2, counts) == (
        "Release 3 is shipped to all: it is expected to get between -1 % and +8 % more clicks than"
        " release 2, by 20,113 decisions of 412 installs."
    )
    canary = sentence(ope.GateResult(ope.CANARY, ["wide"]), change, 2, counts)
    assert "Release 3 goes to a few per cent of the devices first" in canary
    held = sentence(ope.GateResult(ope.HOLD, ["harm"]), change, 2, counts)
    assert held.startswith("Release 3 is held: it is expected to get between")
    unsound = sentence(ope.GateResult(ope.HOLD, ["no click"], False), None, 2, counts)
    assert unsound == "Release 3 is held: the log cannot judge it (no click)."
    same = sentence(ope.GateResult(ope.SHIP, []), {"low": 0.0, "high": 0.0}, 2, counts)
    assert "exactly as many clicks as release 2" in same
