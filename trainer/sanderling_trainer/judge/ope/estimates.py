"""Every estimator on one log, with intervals over groups, the health of its weights, and refusals.

The log's value is its click rate per judged slot; that a slot is judged must not depend on what it shows. A decision
that survived shedding with probability p counts 1/p. Refuses to know policies, and to stand behind an estimate whose
weights are bad: that is marked as refused, and why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sanderling_trainer.judge.intervals import (
    MOST_UNITS,
    RESAMPLES,
    Interval,
    betting,
    corrected,
    empirical_bernstein,
    lots,
    resample,
)
from sanderling_trainer.judge.ope import estimators
from sanderling_trainer.judge.ope.propensities import ROUNDING, Propensities, impossible, weights
from sanderling_trainer.judge.ope.reward_model import Predictions

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

BLOCK = 8192

LEAST_ESS = 100.0
LEAST_GROUPS = 10.0
MOST_UNSUPPORTED = 0.01
NO_CLICK = "a reward that is no click in {0, 1} (estimate on clicks, then transform the estimate)"
IMPOSSIBLE = "a logged propensity that is not in (0, 1], though what was shown cannot have been impossible"
NO_SURVIVAL = "a chance of survival that is not in (0, 1]"


class Slates(NamedTuple):
    """A log of m slates of K slots: reward [m, K] clicks in {0, 1}, judged bool [m, K], group int64 [m] what to
    resample, the logging policies' propensities, and survived float64 [m] in (0, 1], the chance of being in the log."""

    reward: NDArray[Any]
    judged: Bools
    group: NDArray[np.int64]
    logged: Propensities
    survived: Floats


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
    parts, slots = _summed(log, target, predicted, largest, rng)
    decisions = len(log.reward) / float(log.judged.sum())
    return [
        _estimate(part, values, means, slots, decisions, unsupported)
        for part, (values, means) in zip(parts, _resampled(parts, rng), strict=True)
    ]


def faulty(log: Slates) -> dict[str, Bools]:
    """Return, by reason, which decisions bool [m] cannot be used at all."""
    odd = log.judged & ~((log.reward == 0) | (log.reward == 1))
    wrong = np.logical_or.reduce([impossible(probability) for probability in log.logged])
    return {NO_CLICK: odd.any(axis=1), IMPOSSIBLE: wrong.any(axis=1), NO_SURVIVAL: impossible(log.survived)}


def _check(log: Slates, target: Propensities) -> None:
    if not log.judged.any():
        raise ValueError("expected at least one judged slot, found none")
    for reason, where in faulty(log).items():
        if where.any():
            raise ValueError(f"expected usable decisions, found {reason} in {int(where.sum())} of {len(where)}")
    for name, probability in zip(Propensities._fields, target, strict=True):
        if not (probability.min() >= 0.0 and probability.max() <= 1.0 + ROUNDING):
            raise ValueError(f"expected the target's {name} propensities in [0, 1], found others")


def difference(estimate: Estimate, other: Estimate) -> Interval:
    """Return estimate - other, both of one call of `estimates` and so on the same resamples."""
    return corrected(
        estimate.value - other.value, estimate.resampled - other.resampled, estimate.without - other.without
    )


@dataclass(frozen=True)
class _Part:
    """Sums that make an estimate, Σ_c slots_c · top_c / bottom_c / Σ_c slots_c, each [lots, c]; and of its weights.

    Where contributions are known to lie in `span`, `units` float64 [groups] are their sums, not in lots.
    """

    name: str
    top: Floats
    bottom: Floats
    slots: Floats
    weight: Floats
    squares: float
    most: float
    span: tuple[float, float] | None = None
    units: Floats | None = None

    def __add__(self, other: _Part) -> _Part:
        sums = {name: getattr(self, name) + getattr(other, name) for name in ("top", "bottom", "slots", "weight")}
        squares = self.squares + other.squares
        units = None if self.units is None or other.units is None else self.units + other.units
        return replace(self, **sums, squares=squares, units=units, most=max(self.most, other.most))


class _Block:
    """A few thousand decisions, so that what is computed of them stays in the processor's cache."""

    def __init__(self, log: Slates, code: Ints, groups: int, lot: Ints) -> None:
        m, lots = len(code), min(groups, MOST_UNITS)
        self.code, self.groups, self.count = code, groups, 1.0 / log.survived
        self.by_lot = csr_array((self.count, (lot, np.arange(m))), shape=(lots, m))
        self.inside, self.ones = log.judged.astype(np.float64), np.ones(log.judged.shape[1])
        self.slots: Floats = self.by_lot @ self.inside

    def all(self, values: Floats) -> Floats:
        """Return the sums [lots, 1] of values [m, K], masked already."""
        return np.asarray(self.by_lot @ (values @ self.ones))[:, None]

    def units(self, values: Floats) -> Floats:
        """Return the sums float64 [groups] of values [m, K], masked already; groups, not lots."""
        return np.bincount(self.code, (values @ self.ones) * self.count, self.groups).astype(np.float64)


class _Family:
    """A family's weights [m, K], 0 where nothing is judged, and their sums [lots, c]."""

    def __init__(self, block: _Block, weight: Floats, by_slot: bool) -> None:
        self.block, self.weight, self.by_slot = block, weight * block.inside, by_slot
        self.bottom = self.sum(self.weight)
        self.slots = block.slots if by_slot else block.slots.sum(axis=1, keepdims=True)
        rows = np.einsum("mk,mk->m", self.weight, self.weight)
        self.health = self.bottom.sum(axis=1, keepdims=True), float(rows @ np.square(block.count)), self.weight.max()

    def sum(self, values: Floats) -> Floats:
        """Return the sums of values [m, K], each slot's if the family is normalised slot by slot."""
        return np.asarray(self.block.by_lot @ values) if self.by_slot else self.block.all(values)

    def part(self, name: str, contribution: Floats, span: tuple[float, float] | None = None) -> _Part:
        """Make the part of a mean of contributions [m, K], known to lie in `span` when that is given."""
        block, slots = self.block, self.slots.sum(axis=1, keepdims=True)
        inside = contribution * block.inside
        units = None if span is None else block.units(inside)
        return _Part(name, block.all(inside), slots, slots, *self.health, span, units)

    def normalised(self, name: str, contribution: Floats) -> _Part:
        """Make the part of the self-normalised estimator."""
        return _Part(name, self.sum(contribution), self.bottom, self.slots, *self.health)


def _summed(
    log: Slates,
    target: Propensities,
    predicted: Predictions | None,
    largest: Mapping[str, float] | None,
    rng: np.random.Generator,
) -> tuple[list[_Part], Floats]:
    """Return the parts of all estimators over the whole log, block by block, and the judged slots of each group."""
    names, code = np.unique(log.group, return_inverse=True)
    lot, spans = lots(len(names), rng)[code], _spans(predicted, largest)
    parts: list[_Part] = []
    slots = np.zeros(len(names))
    for start in range(0, len(code), BLOCK):
        rows = slice(start, start + BLOCK)
        some = Slates(*(cut(part, rows) for part in log))
        block = _Block(some, code[rows], len(names), lot[rows])
        found = weights(some.logged, cut(target, rows))
        more = list(_parts(block, some, found, cut(predicted, rows), spans))
        parts = [one + other for one, other in zip(parts, more, strict=True)] if parts else more
        slots += block.units(block.inside)
    return parts, slots


def cut(part: Any, rows: Any) -> Any:
    """Return the chosen rows of an array, or of every array in a named tuple."""
    if part is None:
        return None
    return part[rows] if isinstance(part, np.ndarray) else type(part)(*(cut(each, rows) for each in part))


def _parts(
    block: _Block, log: Slates, found: dict[str, Floats], predicted: Predictions | None, spans: Mapping[str, Any]
) -> Iterator[_Part]:
    """Yield what each estimator sums over a block."""
    reward = np.where(log.judged, log.reward, 0.0)
    observed = _Family(block, np.ones_like(reward), by_slot=True)
    yield observed.part("observed", reward, spans.get("observed"))
    families = {name: _Family(block, weight, name != "inclusion") for name, weight in found.items()}
    for name, family in families.items():
        contribution = estimators.ips(family.weight, reward)
        yield family.part(name, contribution, spans.get(name))
        yield family.normalised(f"SN-{name}", contribution)
        cap = _Family(block, np.minimum(family.weight, estimators.CAP), by_slot=False)
        yield cap.part(f"clipped {name}", estimators.clipped(family.weight, reward), spans.get(f"clipped {name}"))
    if predicted is None:
        return
    q, item, anywhere = predicted, families["IIPS"], families["inclusion"]
    yield observed.part("DM", estimators.direct(q.expected))
    contribution = estimators.doubly_robust(item.weight, reward, q.shown, q.expected)
    yield item.part("DR", contribution, spans.get("DR"))
    contribution = estimators.doubly_robust(anywhere.weight, reward, q.shown - q.slot, q.expected - q.slot)
    yield anywhere.part("DR-inclusion", contribution, spans.get("DR-inclusion"))
    yield item.part("Switch-DR", estimators.switch(item.weight, reward, q.shown, q.expected))
    yield item.part("DRos", estimators.optimistic_shrinkage(item.weight, reward, q.shown, q.expected))
    contribution = estimators.cascade(found["RIPS"], reward, q.shown, q.above)
    yield families["RIPS"].part("Cascade-DR", contribution, spans.get("Cascade-DR"))


def _spans(predicted: Predictions | None, largest: Mapping[str, float] | None) -> dict[str, tuple[float, float]]:
    """Return the range of each estimator's contributions, for those that have a known one."""
    if largest is None:
        return {}
    known = {name: most for name, most in largest.items() if np.isfinite(most)}
    spans = {"observed": (0.0, 1.0)} | {name: (0.0, most) for name, most in known.items()}
    spans |= {f"clipped {name}": (0.0, min(most, estimators.CAP)) for name, most in largest.items()}
    if predicted is None:
        return spans
    away = float(np.abs(predicted.slot).max())
    least = min(0.0, *(float(q.min()) - away for q in predicted[:3]))
    most = max(1.0, *(float(q.max()) + away for q in predicted[:3]))
    for name, family in (("DR", "IIPS"), ("DR-inclusion", "inclusion"), ("Cascade-DR", "RIPS")):
        if family in known:
            weight, before = known[family], known[family] if family == "RIPS" else 1.0
            spans[name] = before * least - weight * most, before * most + weight * (1.0 - least)
    return spans


def _resampled(parts: list[_Part], rng: np.random.Generator) -> Iterator[tuple[Floats, Floats]]:
    """Yield each part's estimate and mean weight, [1 + RESAMPLES + lots] each: as they are, on the resamples, and with
    one lot left out."""
    columns = [column for part in parts for column in (part.top, part.bottom, part.slots, part.weight)]
    stacked = np.concatenate(columns, axis=1)
    total = stacked.sum(axis=0, keepdims=True)
    drawn = np.concatenate([total, resample(stacked, rng), total - stacked])
    pieces = iter(np.split(drawn, np.cumsum([column.shape[1] for column in columns])[:-1], axis=1))
    for top, bottom, slots, weight in zip(pieces, pieces, pieces, pieces, strict=True):
        shown = np.maximum(slots.sum(axis=1), 1e-300)
        yield estimators.self_normalised(top, bottom, slots), weight[:, 0] / shown


def _estimate(
    part: _Part, values: Floats, means: Floats, slots: Floats, decisions: float, unsupported: float
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
        yield "the estimate is the same on every resample: all rewards are alike, and no interval can be told"
