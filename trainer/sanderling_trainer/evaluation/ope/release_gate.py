"""The release gate: a candidate passes only if every check passes; otherwise it is blocked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from sanderling_trainer.evaluation.ope.estimate import MIN_ESS, Estimate, difference

PRIMARY = "SN-inclusion"
"""The estimator that decides."""

COMPARED = ("SN-SIPS", "SN-RIPS", "SN-IIPS", "SN-inclusion", "DR", "DR-inclusion", "Cascade-DR")
"""The estimators that must agree: those whose bias, if any, comes from their assumption alone."""


@dataclass(frozen=True)
class GateThresholds:
    """What a candidate must reach."""

    margin: float = 0.05
    """How far the lower bound may be below the active policy, as a share of its click rate."""

    min_ess: float = MIN_ESS
    """The smallest effective sample size of the primary estimate."""

    max_unsupported: float = 0.0
    """The largest share of the candidate's slots with items that the log never shows."""

    max_standard_errors: float = 3.0
    """How far the mean weight may be from 1, and two estimators from each other."""


@dataclass(frozen=True)
class GateResult:
    """Whether the candidate passes; otherwise `reasons` has the reasons for blocking it."""

    passed: bool
    reasons: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return both fields by name, ready for JSON."""
        return asdict(self)


def gate(
    estimates: Sequence[Estimate], thresholds: GateThresholds, primary: str = PRIMARY
) -> GateResult:
    """Return the verdict on a candidate from all estimates of one log.

    `observed` among them is the active policy's click rate. The candidate passes only if the
    primary estimate is not refused, its effective sample size is large enough, its unsupported
    mass small enough and its mean weight 1, if the lower bound of primary - observed is at least
    -margin, and if the estimators agree.
    """
    by_name = {estimate.estimator: estimate for estimate in estimates}
    if primary not in by_name or "observed" not in by_name:
        reason = f"expected estimates with `observed` and `{primary}`, found {sorted(by_name)}"
        return GateResult(False, [reason])
    reasons = [
        *_unreliable(by_name[primary], thresholds),
        *_worse(by_name[primary], by_name["observed"], thresholds),
        *disagreements(estimates, thresholds.max_standard_errors),
    ]
    return GateResult(not reasons, reasons)


def disagreements(estimates: Sequence[Estimate], max_standard_errors: float) -> list[str]:
    """Return where estimators of `COMPARED` that are not refused differ by too much.

    They rest on different assumptions, so where they differ one does not hold. Fewer than two
    cannot confirm each other, which is a reason too. DM and the clipped estimates are biased by
    design and do not take part.
    """
    usable = [
        estimate
        for estimate in estimates
        if estimate.estimator in COMPARED and estimate.refused is None
    ]
    if len(usable) < 2:
        names = ", ".join(estimate.estimator for estimate in usable) or "none"
        return [
            f"fewer than two estimators are not refused ({names}), so nothing confirms the estimate"
        ]
    reasons = []
    for first, second in combinations(usable, 2):
        change = first.value - second.value
        error = float(np.std(first.resampled - second.resampled))
        if abs(change) > max_standard_errors * error + 1e-9:
            reasons.append(
                f"{first.estimator} and {second.estimator} differ by {change:+.4f}, more than"
                f" {max_standard_errors:g} standard errors ({error:.4f}): an assumption does not"
                " hold"
            )
    return reasons


def _unreliable(primary: Estimate, thresholds: GateThresholds) -> Iterator[str]:
    if primary.refused is not None:
        yield f"{primary.estimator} is refused: {primary.refused}"
        return
    if primary.ess < thresholds.min_ess:
        yield f"effective sample size {primary.ess:.0f} is below {thresholds.min_ess:.0f}"
    if abs(primary.mean_weight - 1.0) > thresholds.max_standard_errors * primary.mean_error + 1e-9:
        yield (
            f"mean weight {primary.mean_weight:.3f} is more than"
            f" {thresholds.max_standard_errors:g} standard errors from 1"
        )
    if primary.unsupported > thresholds.max_unsupported:
        yield (
            f"unsupported mass: {primary.unsupported:.3%} of the candidate's slots hold items that"
            f" the log never shows, above {thresholds.max_unsupported:.3%}"
        )


def _worse(primary: Estimate, observed: Estimate, thresholds: GateThresholds) -> Iterator[str]:
    change = difference(primary, observed)
    margin = thresholds.margin * observed.value

    # Negated, so that a NaN holds the candidate.
    if not change.low >= -margin:
        yield (
            f"the difference to the active policy by {primary.estimator} may be as low as"
            f" {change.low:+.4f} (estimate {change.value:+.4f}), below -{margin:.4f}"
        )
