"""The relative difference in clicks that a log's sums give, with its error and its bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv

from sanderling_trainer.evaluation.ope.paired_difference import FAMILIES, STEP, Sums

Floats = NDArray[np.float64]

CHECK_TAIL = 0.05
"""The error of each of the two bounds on the model's clicks."""

BEYOND_THE_POOL = 0.5
"""How much of the lower bound counts: what the active policy ranks beyond its pool is worse than
what it ranks inside, where the model was checked, and no log says by how much."""


@dataclass(frozen=True)
class RelativeDifference:
    """A difference in click rate as a share of the active policy's: .05 is 5 % more clicks."""

    family: str

    value: float
    """With the model's clicks, as far as it is checked, on what the log never shows."""

    low: float
    """With the fewest clicks there that the check allows."""

    high: float
    """With the most clicks there that the check allows, at most one in each slot."""

    error: float
    """Standard error over the resampling units, with that of θ."""

    ess: float
    """Kish's effective sample size of the weights, in decisions."""


def relative_difference(sums: Sums, family: str, decisions: int) -> RelativeDifference:
    """Return the difference by one family of weights; some units have clicks.

    The error is that of a ratio (linearized), with the units as clusters.
    """
    at = FAMILIES.index(family)
    clicks = float(sums.clicks.sum())
    low, middle, high = (float(part.sum()) / clicks for part in unsupported_clicks(sums))
    supported = float(sums.difference[:, at].sum()) / clicks
    value = supported + middle

    by_unit = sums.difference[:, at] - value * sums.clicks
    if family == "PBM":
        slope = (sums.slope.sum(axis=0) - sums.difference[:, at].sum()) / STEP
        by_unit = by_unit + sums.influence @ slope

    squared = float(sums.squared_weight[:, at].sum())
    decisions_per_slot = decisions / float(sums.slots.sum())
    return RelativeDifference(
        family=family,
        value=value,
        low=supported + low,
        high=supported + high,
        error=_error_of_sum(by_unit) / clicks,
        ess=float(sums.plain_weight[:, at].sum()) ** 2 / max(squared, 1e-300) * decisions_per_slot,
    )


def unsupported_clicks(sums: Sums) -> tuple[Floats, Floats, Floats]:
    """Return the fewest, the expected and the most clicks without support, float64 [2] by class.

    The model's clicks there are scaled by clicks / model on the explored items that stand for
    them. The fewest and the most are those at the one-sided 95 % bounds of a Poisson mean (Garwood
    1936) with the dispersion of the units: without any click between none and three. Of the fewest
    half count (`BEYOND_THE_POOL`); expected is the middle.
    """
    clicks = sums.checked_clicks.sum(axis=0)
    model = np.maximum(sums.checked_model.sum(axis=0), 1e-300)
    residual = sums.checked_clicks - clicks / model * sums.checked_model
    variance = np.array([_error_of_sum(part) ** 2 for part in residual.T])
    dispersion = np.maximum(variance / np.maximum(clicks, 1.0), 1.0)
    events = clicks / dispersion
    low = np.where(events > 0.0, gammaincinv(np.maximum(events, 1e-9), CHECK_TAIL), 0.0)
    high = gammaincinv(events + 1.0, 1.0 - CHECK_TAIL)

    predicted = sums.unsupported_model.sum(axis=0) / model
    slots = sums.unsupported_slots.sum(axis=0)
    few = np.minimum(BEYOND_THE_POOL * low * dispersion * predicted, slots)
    many = np.minimum(high * dispersion * predicted, slots)
    return few, 0.5 * (few + many), many


def contradictions(
    sums: Sums, primary: str, decisions: int, min_ess: float, max_errors: float
) -> list[str]:
    """Return which families of weaker assumptions differ from the primary one by too much.

    A family needs an effective sample size of `min_ess`: with fewer the few clicks of large
    weight are missing more often than they are there, and its error is too small by as much.
    """
    clicks = float(sums.clicks.sum())
    reasons = []
    for family in ("IIPS", "RIPS", "SIPS"):
        if relative_difference(sums, family, decisions).ess < min_ess:
            continue
        gap = sums.difference[:, FAMILIES.index(family)]
        gap = gap - sums.difference[:, FAMILIES.index(primary)]
        error = _error_of_sum(gap)
        if abs(float(gap.sum())) > max_errors * error + 1e-9 * clicks:
            reasons.append(
                f"{family} and {primary} differ by {gap.sum() / clicks:+.1%} of the clicks, more"
                f" than {max_errors:g} standard errors ({error / clicks:.1%}): clicks depend on"
                " more than item and slot"
            )
    return reasons


def _error_of_sum(by_unit: Floats) -> float:
    """Return the standard error of the sum of independent units' values float64 [units]."""
    units = len(by_unit)
    if units < 2:
        return float("inf")
    return float(np.sqrt(units * np.var(by_unit, ddof=1)))
