"""Every estimator on one log, with intervals over groups, the health of its weights, and refusals.

The log's value is its click rate per judged slot; that a slot is judged must not depend on what it shows. A decision
that survived shedding with probability p counts 1/p. Refuses to know policies, and to stand behind an estimate whose
weights are bad: that is marked as refused, and why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.evaluation.intervals import (
    RESAMPLES,
    Interval,
    betting,
    corrected,
    empirical_bernstein,
    resample,
)
from sanderling_trainer.evaluation.ope import estimators
from sanderling_trainer.evaluation.ope.aggregation import Part, Slates, summed
from sanderling_trainer.evaluation.ope.propensities import ROUNDING, Propensities, impossible
from sanderling_trainer.evaluation.ope.reward_model import Predictions

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LEAST_ESS = 100.0
LEAST_GROUPS = 10.0
MOST_UNSUPPORTED = 0.01
NO_CLICK = "a reward that is no click in {0, 1} (estimate on clicks, then transform the estimate)"
IMPOSSIBLE = (
    "a logged propensity that is not in (0, 1], though what was shown cannot have been impossible"
)
NO_SURVIVAL = "a chance of survival that is not in (0, 1]"


@dataclass(frozen=True)
class Estimate:
    """A click rate per judged slot, with its 95 % bootstrap interval (BCa) over groups.

    `ess` is Kish's effective sample size in decisions: that of the slots' weights, over the judged slots of a decision;
    `groups` the same of the groups' judged slots. `mean_weight` ought to be 1, give or take `mean_error`, its standard
    error; `unsupported` is the share of the target's slots that the log cannot know. `refused` says why the value is
    not to be relied on, None if nothing speaks against it. `bernstein` and `betting` are intervals that hold for any
    sample size, where the largest weight is known. `resampled` float64 [RESAMPLES] are the values on the resamples,
    which all estimates of one call share, `without` float64 [groups] those with one group, or lot of groups, left out.
    """

    estimator: str
    value: float
    low: float
    high: float
    ess: float
    groups: float
    mean_weight: float
    mean_error: float
    max_weight: float
    unsupported: float
    refused: str | None
    bernstein: Interval | None = None
    betting: Interval | None = None
    resampled: Floats = field(repr=False, compare=False, default_factory=lambda: np.empty(0))
    without: Floats = field(repr=False, compare=False, default_factory=lambda: np.empty(0))


def estimates(
    log: Slates,
    target: Propensities,
    rng: np.random.Generator,
    *,
    predicted: Predictions | None = None,
    unsupported: float = 0.0,
    largest: Mapping[str, float] | None = None,
) -> list[Estimate]:
    """Return first `observed`, the logging policies' own click rate, then every estimator of the target's.

    SIPS, RIPS, IIPS and inclusion come plain, self-normalised (`SN-`) and clipped at e³; with predictions also DM, DR,
    Switch-DR and DRos on the weights of IIPS, DR-inclusion, and Cascade-DR. `unsupported` is the mean of
    `unsupported_mass`; `largest` the largest weights (see `largest_weights`), which give the intervals for any sample
    size. Raises `ValueError` when nothing is judged, a reward is not a click or a propensity is not in (0, 1].
    """
    _check(log, target)
    parts, slots = summed(log, target, predicted, largest, rng)
    decisions = len(log.reward) / float(log.judged.sum())
    return [
        _estimate(part, values, means, slots, decisions, unsupported)
        for part, (values, means) in zip(parts, _resampled(parts, rng), strict=True)
    ]


def faulty(log: Slates) -> dict[str, Bools]:
    """Return, by reason, which decisions bool [m] cannot be used at all."""
    odd = log.judged & ~((log.reward == 0) | (log.reward == 1))
    wrong = np.logical_or.reduce([impossible(probability) for probability in log.logged])
    return {
        NO_CLICK: odd.any(axis=1),
        IMPOSSIBLE: wrong.any(axis=1),
        NO_SURVIVAL: impossible(log.survived),
    }


def _check(log: Slates, target: Propensities) -> None:
    if not log.judged.any():
        raise ValueError("expected at least one judged slot, found none")
    for reason, where in faulty(log).items():
        if where.any():
            raise ValueError(
                f"expected usable decisions, found {reason} in {int(where.sum())} of {len(where)}"
            )
    for name, probability in zip(Propensities._fields, target, strict=True):
        if not (probability.min() >= 0.0 and probability.max() <= 1.0 + ROUNDING):
            raise ValueError(f"expected the target's {name} propensities in [0, 1], found others")


def difference(estimate: Estimate, other: Estimate) -> Interval:
    """Return estimate - other, both of one call of `estimates` and so on the same resamples."""
    return corrected(
        estimate.value - other.value,
        estimate.resampled - other.resampled,
        estimate.without - other.without,
    )


def _resampled(parts: list[Part], rng: np.random.Generator) -> Iterator[tuple[Floats, Floats]]:
    """Yield each part's estimate and mean weight, [1 + RESAMPLES + lots] each: as they are, on the resamples, and with
    one lot left out."""
    columns = [
        column for part in parts for column in (part.top, part.bottom, part.slots, part.weight)
    ]
    stacked = np.concatenate(columns, axis=1)
    total = stacked.sum(axis=0, keepdims=True)
    drawn = np.concatenate([total, resample(stacked, rng), total - stacked])
    pieces = iter(np.split(drawn, np.cumsum([column.shape[1] for column in columns])[:-1], axis=1))
    for top, bottom, slots, weight in zip(pieces, pieces, pieces, pieces, strict=True):
        shown = np.maximum(slots.sum(axis=1), 1e-300)
        yield estimators.self_normalised(top, bottom, slots), weight[:, 0] / shown


def _estimate(
    part: Part, values: Floats, means: Floats, slots: Floats, decisions: float, unsupported: float
) -> Estimate:
    """Make an estimate; slots float64 [groups] are each group's judged ones, `decisions` how many a judged slot is."""
    resampled, without = values[1 : 1 + RESAMPLES], values[1 + RESAMPLES :]
    found = corrected(float(values[0]), resampled, without)
    bounded: dict[str, Interval] = {}
    if part.span is not None and part.units is not None:
        for how in (empirical_bernstein, betting):
            bounded[how.__name__] = how(part.units, slots, *part.span)
    estimate = Estimate(
        estimator=part.name,
        value=found.value,
        low=found.low,
        high=found.high,
        ess=float(part.weight.sum() ** 2 / max(part.squares, 1e-300) * decisions),
        groups=float(slots.sum() ** 2 / np.square(slots).sum()),
        mean_weight=float(means[0]),
        mean_error=float(np.std(means[1 : 1 + RESAMPLES])),
        max_weight=float(part.most),
        unsupported=0.0 if part.name == "observed" else unsupported,
        refused=None,
        bernstein=bounded.get("empirical_bernstein"),
        betting=bounded.get("betting"),
        resampled=resampled,
        without=without,
    )
    return replace(estimate, refused="; ".join(_refusals(estimate)) or None)


def _refusals(estimate: Estimate) -> Iterator[str]:
    if estimate.groups < LEAST_GROUPS:
        yield f"{estimate.groups:.1f} effective groups to resample, fewer than {LEAST_GROUPS:.0f}"
    if estimate.ess < LEAST_ESS:
        yield f"effective sample size {estimate.ess:.0f} is below {LEAST_ESS:.0f}"
    if abs(estimate.mean_weight - 1.0) > 3.0 * estimate.mean_error + ROUNDING:
        yield f"mean weight {estimate.mean_weight:.3f} is beyond 3 standard errors ({estimate.mean_error:.3f}) of 1"
    if estimate.unsupported > MOST_UNSUPPORTED:
        yield f"{estimate.unsupported:.1%} of the target's slots hold items that the log never shows"
    if estimate.estimator == "DM":
        yield "its interval cannot know how wrong the model is; DR corrects it"
    if np.ptp(estimate.resampled) == 0.0:
        yield "the estimate is the same on every resample, for rewards are all alike or without weight: no interval"
