"""The release gate: ship to all, try on a few per cent of the devices, or hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.special import stdtrit

from sanderling_trainer.evaluation.ope.paired_difference import Sums
from sanderling_trainer.evaluation.ope.relative_difference import (
    RelativeDifference,
    contradictions,
    relative_difference,
)

PRIMARY = "PBM"
"""The family of weights that decides."""

SHIP = "ship"
CANARY = "canary"
HOLD = "hold"


@dataclass(frozen=True)
class GateThresholds:
    """What a candidate must reach."""

    margin: float = 0.05
    """How much worse than the active policy a candidate may be, as a share of its clicks."""

    ship_confidence: float = 0.99
    """A candidate that is worse by the margin ships with a probability of at most 1 minus this."""

    hold_power: float = 0.9
    """A candidate that is worse by the margin is held with at least this probability."""

    min_decisions: int = 100
    min_units: int = 10
    """Installs, or pseudonyms: an error over fewer is not reliable."""

    min_ess: float = 100.0
    """The smallest effective sample size, in decisions, at which a candidate ships to all."""

    min_compared_ess: float = 400.0
    """From which on a family of weights can contradict the primary one."""

    max_standard_errors: float = 4.0
    """How far the mean weight may be from what it should be, and two families apart."""


@dataclass(frozen=True)
class GateResult:
    """`ship`, `canary` or `hold`; unless it ships, `reasons` says why."""

    verdict: str
    reasons: list[str]

    is_sound: bool = True
    """Whether the log can judge the candidate at all; if not it is held."""

    @property
    def passed(self) -> bool:
        """Whether a checkpoint is written: the candidate is not held."""
        return self.verdict != HOLD

    def as_dict(self) -> dict[str, Any]:
        """Return all fields by name, ready for JSON."""
        return asdict(self)


def gate(sums: Sums, decisions: int, thresholds: GateThresholds | None = None) -> GateResult:
    """Return the verdict on a candidate from the sums over the units of a log of `decisions`.

    It ships if the lower bound of the difference, with the fewest clicks on what the log never
    shows, is above minus the margin. It is held if the log cannot judge it, or if the difference
    with the most clicks there is below 0 and so far down that a candidate worse by the margin
    would be found there with probability `hold_power`. Otherwise it is a canary.
    """
    thresholds = thresholds or GateThresholds()
    unsound = list(_unsound(sums, decisions, thresholds))
    if unsound:
        return GateResult(HOLD, unsound, is_sound=False)

    change = relative_difference(sums, PRIMARY, decisions)
    limit = hold_limit(change, thresholds)
    if change.high < limit:
        return GateResult(
            HOLD,
            [f"harm is likely: {change.high:+.1%} clicks at best estimate, below {limit:+.1%}"],
        )
    reasons = []
    low = ship_bound(change, len(sums.clicks), thresholds)

    # Negated, so that a NaN does not ship.
    if not low > -thresholds.margin:
        reasons.append(
            f"it may lose more than {thresholds.margin:.0%} of the clicks: the"
            f" {thresholds.ship_confidence:.0%} bound is {low:+.1%}"
        )
    if change.ess < thresholds.min_ess:
        reasons.append(
            f"the effective sample is {change.ess:.0f} decisions, fewer than"
            f" {thresholds.min_ess:.0f}"
        )
    return GateResult(CANARY if reasons else SHIP, reasons)


def ship_bound(change: RelativeDifference, units: int, thresholds: GateThresholds) -> float:
    """Return the one-sided lower bound of a difference, by Student's t over the units."""
    quantile = float(stdtrit(max(units - 1, 1), thresholds.ship_confidence))
    return change.low - quantile * change.error


def hold_limit(change: RelativeDifference, thresholds: GateThresholds) -> float:
    """Return below which estimate a candidate is held: at most 0."""
    above = NormalDist().inv_cdf(thresholds.hold_power) * change.error
    return min(0.0, above - thresholds.margin)


def _unsound(sums: Sums, decisions: int, thresholds: GateThresholds) -> Iterator[str]:
    units = len(sums.clicks)
    if decisions < thresholds.min_decisions:
        yield f"{decisions} usable decisions, fewer than {thresholds.min_decisions}"
        return
    if units < thresholds.min_units:
        yield f"{units} installs or pseudonyms, fewer than {thresholds.min_units}"
        return
    if sums.clicks.sum() == 0.0:
        yield "no click in any judged slot"
        return

    # Ratio of sums: the error is that of the difference by unit. A short log may not have shown the
    # rare items that carry the weight; then its spread is too small, and the known one is not.
    gap = sums.weight - sums.expected_weight
    error = float(np.sqrt(max(units * np.var(gap, ddof=1), sums.weight_variance.sum())))
    examined = float(sums.examined.sum())
    if abs(float(gap.sum())) > thresholds.max_standard_errors * error + 0.01 * examined:
        yield (
            f"the mean weight is {sums.weight.sum() / examined:.3f}, but by rank, pool and ε it"
            f" should be {sums.expected_weight.sum() / examined:.3f}: the propensities do not"
            " belong to the log"
        )
    yield from contradictions(
        sums,
        PRIMARY,
        decisions,
        thresholds.min_compared_ess,
        thresholds.max_standard_errors,
    )
