"""The release gate: may a candidate follow the serving policy? Only with every check passed; else hold, and say why.

Refuses to know files and exit codes, and to weigh one check against another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from sanderling_trainer.evaluation.ope.estimate import LEAST_ESS, Estimate, difference

PRIMARY = "SN-inclusion"
COMPARED = ("SN-SIPS", "SN-RIPS", "SN-IIPS", "SN-inclusion", "DR", "DR-inclusion", "Cascade-DR")


@dataclass(frozen=True)
class Thresholds:
    """What a candidate must reach.

    margin: δ, how much worse than the serving policy the lower bound may be, as a share of the serving click rate.
    ess: the least effective sample size of the primary estimate.
    unsupported: the largest share of the candidate's slots with items that the log never shows.
    errors: how many standard errors the mean weight may be from 1, and two estimators from each other.
    """

    margin: float = 0.05
    ess: float = LEAST_ESS
    unsupported: float = 0.0
    errors: float = 3.0


@dataclass(frozen=True)
class Verdict:
    """Whether the candidate passes; otherwise `reasons` says in words what speaks against it."""

    passed: bool
    reasons: list[str]

    def plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"passed": self.passed, "reasons": self.reasons}


def gate(found: Sequence[Estimate], thresholds: Thresholds, primary: str = PRIMARY) -> Verdict:
    """Judge a candidate by the `estimates` of one log, whose `observed` is the serving policy's click rate.

    Passes only if the lower bound of primary - observed is at least -δ, the primary estimate is not refused, its
    effective sample size is enough, its unsupported mass nil, its mean weight 1, and the estimators agree.
    """
    by_name = {estimate.estimator: estimate for estimate in found}
    if primary not in by_name or "observed" not in by_name:
        return Verdict(
            False, [f"expected estimates with `observed` and `{primary}`, found {sorted(by_name)}"]
        )
    reasons = [
        *_health(by_name[primary], thresholds),
        *_worse(by_name[primary], by_name["observed"], thresholds),
    ]
    reasons += agreement(found, thresholds.errors)
    return Verdict(not reasons, reasons)


def agreement(found: Sequence[Estimate], errors: float) -> list[str]:
    """Return where estimators of COMPARED that are not refused differ by more than so many standard errors.

    They rest on different assumptions, so where they differ one does not hold. Fewer than two cannot agree. DM and
    clipped estimates are biased by what they are, and do not take part.
    """
    usable = [
        estimate
        for estimate in found
        if estimate.estimator in COMPARED and estimate.refused is None
    ]
    if len(usable) < 2:
        names = ", ".join(estimate.estimator for estimate in usable) or "none"
        return [
            f"fewer than two estimators are not refused ({names}), so nothing confirms the estimate"
        ]
    reasons = []
    for one, other in combinations(usable, 2):
        apart = one.value - other.value
        error = float(np.std(one.resampled - other.resampled))
        if abs(apart) > errors * error + 1e-9:
            reasons.append(
                f"{one.estimator} and {other.estimator} differ by {apart:+.4f}, beyond {errors:g} standard errors"
                f" ({error:.4f}): an assumption does not hold"
            )
    return reasons


def _health(primary: Estimate, thresholds: Thresholds) -> Iterator[str]:
    if primary.refused is not None:
        yield f"{primary.estimator} is refused: {primary.refused}"
        return
    if primary.ess < thresholds.ess:
        yield f"effective sample size {primary.ess:.0f} is below {thresholds.ess:.0f}"
    if abs(primary.mean_weight - 1.0) > thresholds.errors * primary.mean_error + 1e-9:
        yield f"mean weight {primary.mean_weight:.3f} is beyond {thresholds.errors:g} standard errors of 1"
    if primary.unsupported > thresholds.unsupported:
        yield (
            f"unsupported mass: {primary.unsupported:.3%} of the candidate's slots hold items that the log never shows,"
            f" above {thresholds.unsupported:.3%}"
        )


def _worse(primary: Estimate, observed: Estimate, thresholds: Thresholds) -> Iterator[str]:
    change, margin = difference(primary, observed), thresholds.margin * observed.value
    if not change.low >= -margin:
        yield (
            f"the difference to the serving policy by {primary.estimator} may be as low as {change.low:+.4f}"
            f" (estimate {change.value:+.4f}), below -{margin:.4f}"
        )
