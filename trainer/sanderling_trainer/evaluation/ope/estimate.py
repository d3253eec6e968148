"""Every estimator on one log, with intervals over groups, diagnostics of the weights, and refusals.

The estimated value is the click rate per judged slot; whether a slot is judged must not depend on
what it shows. A decision that survived shedding with probability p counts 1/p. An estimate whose
weights are bad is still returned, but marked as refused with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.evaluation.intervals import (
    RESAMPLES,
    Interval,
    bca_interval,
    betting,
    empirical_bernstein,
    resample,
)
from sanderling_trainer.evaluation.ope import estimators
from sanderling_trainer.evaluation.ope.aggregation import EstimateSums, SlateLog, aggregate
from sanderling_trainer.evaluation.ope.propensities import (
    ROUNDING,
    Propensities,
    invalid_propensities,
)
from sanderling_trainer.evaluation.ope.reward_model import Predictions

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MIN_ESS = 100.0
"""Smallest effective sample size, in decisions (docs/MATH.md, "Refused")."""

MIN_GROUPS = 10.0
"""Smallest effective number of groups: a bootstrap over fewer has no reliable interval."""

TINY = 1e-300
"""Avoids 0/0 where all weights vanish."""

NOT_A_CLICK = "a reward that is not 0 or 1 (estimate clicks, then transform the estimate)"
INVALID_PROPENSITY = "a logged propensity outside (0, 1]"
INVALID_SURVIVAL = "a survival probability outside (0, 1]"


@dataclass(frozen=True)
class Estimate:
    """A click rate per judged slot, with its 95 % bootstrap interval (BCa) over groups."""

    estimator: str
    value: float
    low: float
    high: float

    ess: float
    """Kish's effective sample size of the weights, in decisions."""

    groups: float
    """Kish's effective number of groups, by their judged slots."""

    mean_weight: float
    """Should be 1 - `unsupported`, within a few `mean_error`."""

    mean_error: float
    """The standard error of `mean_weight`."""

    max_weight: float

    unsupported: float
    """The share of the target's slots with items that the log never shows.

    Plain and clipped estimates count no click there; `SN-` ones are of the other slots.
    """

    refused: str | None
    """Why the value must not be relied on; None if it is reliable."""

    bernstein: Interval | None = None
    """An interval for any sample size, where the largest weight is known."""

    betting: Interval | None = None
    """A tighter interval for any sample size, where the largest weight is known."""

    resampled: Floats = field(repr=False, compare=False, default_factory=lambda: np.empty(0))
    """The value on each bootstrap resample, float64 [RESAMPLES].

    All estimates of one call share the resamples.
    """

    jackknife: Floats = field(repr=False, compare=False, default_factory=lambda: np.empty(0))
    """The value with one resampling unit left out, float64 [units]."""


def estimate_all(
    log: SlateLog,
    target: Propensities,
    rng: np.random.Generator,
    *,
    predicted: Predictions | None = None,
    unsupported: float = 0.0,
    max_weights: Mapping[str, float] | None = None,
) -> list[Estimate]:
    """Return `observed`, the logging policies' own click rate, then every estimate of the target's.

    SIPS, RIPS, IIPS and inclusion come plain, self-normalized (`SN-`) and clipped at e³; with
    `predicted` also DM, DR, Switch-DR and DRos on the weights of IIPS, DR-inclusion and
    Cascade-DR. `unsupported` is the mean of `propensities.unsupported_mass`; `max_weights`, from
    `propensities.max_weights`, gives the intervals for any sample size.

    Raises:
        ValueError: nothing is judged, a reward is not a click, or a probability is out of range.
    """
    _check(log, target)
    sums, slots = aggregate(log, target, predicted, max_weights, rng)
    decisions_per_slot = len(log.reward) / float(log.judged.sum())

    result = []
    for part, (values, mean_weights) in zip(sums, _resampled(sums, rng), strict=True):
        interval = bca_interval(
            float(values[0]), values[1 : 1 + RESAMPLES], values[1 + RESAMPLES :]
        )
        estimate = Estimate(
            estimator=part.estimator,
            value=interval.value,
            low=interval.low,
            high=interval.high,
            ess=_effective_size(part, decisions_per_slot),
            groups=float(slots.sum() ** 2 / np.square(slots).sum()),
            mean_weight=float(mean_weights[0]),
            mean_error=float(np.std(mean_weights[1 : 1 + RESAMPLES])),
            max_weight=float(part.max_weight),
            unsupported=0.0 if part.estimator == "observed" else unsupported,
            refused=None,
            resampled=values[1 : 1 + RESAMPLES],
            jackknife=values[1 + RESAMPLES :],
        )
        if part.bounds is not None and part.by_group is not None:
            estimate = replace(
                estimate,
                bernstein=empirical_bernstein(part.by_group, slots, *part.bounds),
                betting=betting(part.by_group, slots, *part.bounds),
            )
        result.append(replace(estimate, refused="; ".join(_refusals(estimate)) or None))
    return result


def invalid_decisions(log: SlateLog) -> dict[str, Bools]:
    """Return, by reason, which decisions bool [m] cannot be used at all."""
    not_a_click = log.judged & ~((log.reward == 0) | (log.reward == 1))
    invalid = np.logical_or.reduce([invalid_propensities(kind) for kind in log.logged])
    return {
        NOT_A_CLICK: not_a_click.any(axis=1),
        INVALID_PROPENSITY: invalid.any(axis=1),
        INVALID_SURVIVAL: invalid_propensities(log.pass_probability),
    }


def difference(estimate: Estimate, other: Estimate) -> Interval:
    """Return estimate - other with its interval; both must come from one call of `estimate_all`."""
    return bca_interval(
        estimate.value - other.value,
        estimate.resampled - other.resampled,
        estimate.jackknife - other.jackknife,
    )


def _check(log: SlateLog, target: Propensities) -> None:
    if not log.judged.any():
        raise ValueError("expected at least one judged slot, found none")
    for reason, invalid in invalid_decisions(log).items():
        if invalid.any():
            raise ValueError(
                f"expected usable decisions, found {reason} in {int(invalid.sum())} of"
                f" {len(invalid)}"
            )
    for name, probability in zip(Propensities._fields, target, strict=True):
        if not (probability.min() >= 0.0 and probability.max() <= 1.0 + ROUNDING):
            raise ValueError(
                f"expected the target's {name} propensities in [0, 1],"
                f" found {probability.min()} to {probability.max()}"
            )


def _resampled(
    sums: list[EstimateSums], rng: np.random.Generator
) -> Iterator[tuple[Floats, Floats]]:
    """Yield each estimator's values and mean weights, each [1 + RESAMPLES + units].

    First on the whole log, then on each resample, then with one unit left out. All estimators
    share the resamples, so that their differences are paired.
    """
    columns = [
        column
        for part in sums
        for column in (part.numerator, part.denominator, part.slots, part.weight)
    ]
    stacked = np.concatenate(columns, axis=1)
    total = stacked.sum(axis=0, keepdims=True)
    samples = np.concatenate([total, resample(stacked, rng), total - stacked])

    ends = np.cumsum([column.shape[1] for column in columns])[:-1]
    # One iterator four times: takes the four columns of each estimator in turn.
    pieces = iter(np.split(samples, ends, axis=1))
    for numerator, denominator, slots, weight in zip(pieces, pieces, pieces, pieces, strict=True):
        values = estimators.self_normalized(numerator, denominator, slots)
        yield values, weight[:, 0] / np.maximum(slots.sum(axis=1), TINY)


def _effective_size(part: EstimateSums, decisions_per_slot: float) -> float:
    squared_weight = max(part.squared_weight, TINY)
    return float(part.weight.sum() ** 2 / squared_weight * decisions_per_slot)


def _refusals(estimate: Estimate) -> Iterator[str]:
    if estimate.groups < MIN_GROUPS:
        yield f"{estimate.groups:.1f} effective groups to resample, fewer than {MIN_GROUPS:.0f}"
    if estimate.ess < MIN_ESS:
        yield f"effective sample size {estimate.ess:.0f} is below {MIN_ESS:.0f}"
    supported = 1.0 - estimate.unsupported
    if abs(estimate.mean_weight - supported) > 3.0 * estimate.mean_error + ROUNDING:
        yield (
            f"mean weight {estimate.mean_weight:.3f} is more than 3 standard errors"
            f" ({estimate.mean_error:.3f}) from {supported:.3g}"
        )
    if estimate.estimator == "DM":
        yield "its interval leaves out the error of the reward model; DR corrects for it"
    if np.ptp(estimate.resampled) == 0.0:
        yield (
            "the estimate is the same on every resample because all rewards are alike or have no"
            " weight: there is no interval"
        )
