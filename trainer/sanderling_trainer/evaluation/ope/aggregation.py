"""One pass over a log, block by block: the sums that estimates and their intervals need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sanderling_trainer.evaluation.intervals import MAX_UNITS, random_groups
from sanderling_trainer.evaluation.ope import estimators
from sanderling_trainer.evaluation.ope.propensities import Propensities, importance_weights
from sanderling_trainer.evaluation.ope.reward_model import Predictions

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

DECISIONS_PER_BLOCK = 8192
"""Small enough that what is computed of a block stays in the processor's cache."""


class SlateLog(NamedTuple):
    """A log of m slates of K slots."""

    reward: NDArray[Any]
    """Clicks in {0, 1}, [m, K]."""

    judged: Bools
    """The slots whose reward is known, bool [m, K]."""

    group: Ints
    """What to resample, such as the user, int64 [m]."""

    logged: Propensities
    """The logging policies' propensities of what was shown."""

    pass_probability: Floats
    """The probability in (0, 1] with which each decision is in the log, float64 [m]."""


@dataclass(frozen=True)
class EstimateSums:
    """The sums of one estimator.

    Its value is Σ_c slots_c · numerator_c / denominator_c / Σ_c slots_c.

    Rows are resampling units: groups, or random groups of them. Columns c are the parts that are
    normalized separately: the slots of a slot-wise self-normalized estimator, otherwise one.
    """

    estimator: str

    numerator: Floats
    """Float64 [units, c]."""

    denominator: Floats
    """Float64 [units, c]."""

    slots: Floats
    """Judged slots, float64 [units, c]."""

    weight: Floats
    """Sums of the weights, float64 [units, 1]."""

    squared_weight: float
    """Sum of the squared weights over all decisions."""

    max_weight: float

    bounds: tuple[float, float] | None = None
    """The known range of a contribution; None where there is none."""

    by_group: Floats | None = None
    """Sums of the contributions float64 [groups], where their range is known."""

    def __add__(self, other: EstimateSums) -> EstimateSums:
        by_group = None
        if self.by_group is not None and other.by_group is not None:
            by_group = self.by_group + other.by_group
        return replace(
            self,
            numerator=self.numerator + other.numerator,
            denominator=self.denominator + other.denominator,
            slots=self.slots + other.slots,
            weight=self.weight + other.weight,
            squared_weight=self.squared_weight + other.squared_weight,
            max_weight=max(self.max_weight, other.max_weight),
            by_group=by_group,
        )


class _Block:
    """A few thousand decisions of the log, with the matrix that sums them by resampling unit."""

    def __init__(self, log: SlateLog, group: Ints, n_groups: int, unit: Ints) -> None:
        m = len(group)
        self.group = group
        self.n_groups = n_groups

        # A decision that survived shedding with probability p stands for 1/p decisions.
        self.count = 1.0 / log.pass_probability
        shape = (min(n_groups, MAX_UNITS), m)
        self._by_unit = csr_array((self.count, (unit, np.arange(m))), shape=shape)
        self._ones = np.ones(log.judged.shape[1])

        self.judged = log.judged.astype(np.float64)
        self.slots = self.by_slot(self.judged)

    def by_slot(self, values: Floats) -> Floats:
        """Return the sums [units, K] of masked values [m, K]."""
        return np.asarray(self._by_unit @ values)

    def over_slots(self, values: Floats) -> Floats:
        """Return the sums [units, 1] of masked values [m, K]."""
        # A product with ones is several times faster than `sum(axis=1)` for so few columns.
        return np.asarray(self._by_unit @ (values @ self._ones))[:, None]

    def by_group(self, values: Floats) -> Floats:
        """Return the sums float64 [groups] of masked values [m, K]."""
        by_decision = (values @ self._ones) * self.count
        return np.bincount(self.group, by_decision, self.n_groups).astype(np.float64)


class _WeightFamily:
    """The weights [m, K] of one family in a block, 0 where nothing is judged."""

    def __init__(self, block: _Block, weight: Floats, by_slot: bool) -> None:
        self.weight = weight * block.judged
        self._block = block
        self._by_slot = by_slot
        self._slots = block.slots if by_slot else block.slots.sum(axis=1, keepdims=True)
        self._denominator = self._sum(self.weight)
        squares = np.einsum("mk,mk->m", self.weight, self.weight)
        self._diagnostics = (
            self._denominator.sum(axis=1, keepdims=True),
            float(squares @ np.square(block.count)),
            self.weight.max(),
        )

    def mean(
        self, estimator: str, contribution: Floats, bounds: tuple[float, float] | None = None
    ) -> EstimateSums:
        """Return the sums of a mean of contributions [m, K], which lie in `bounds` if given."""
        slots = self._slots.sum(axis=1, keepdims=True)
        masked = contribution * self._block.judged
        total = self._block.over_slots(masked)
        by_group = None if bounds is None else self._block.by_group(masked)
        return EstimateSums(estimator, total, slots, slots, *self._diagnostics, bounds, by_group)

    def self_normalized(self, estimator: str, contribution: Floats) -> EstimateSums:
        """Return the sums of the self-normalized mean of contributions [m, K], masked already."""
        total = self._sum(contribution)
        return EstimateSums(estimator, total, self._denominator, self._slots, *self._diagnostics)

    def _sum(self, values: Floats) -> Floats:
        return self._block.by_slot(values) if self._by_slot else self._block.over_slots(values)


def aggregate(
    log: SlateLog,
    target: Propensities,
    predicted: Predictions | None,
    max_weights: Mapping[str, float] | None,
    rng: np.random.Generator,
) -> tuple[list[EstimateSums], Floats]:
    """Return the sums of all estimators over the log, and the judged slots float64 [groups].

    Estimators that need a reward model are left out where `predicted` is None; `max_weights`, if
    given, is as `propensities.max_weights` returns it.
    """
    names, group = np.unique(log.group, return_inverse=True)
    unit = random_groups(len(names), rng)[group]
    bounds = _contribution_bounds(predicted, max_weights)

    totals: list[EstimateSums] = []
    slots = np.zeros(len(names))
    for start in range(0, len(group), DECISIONS_PER_BLOCK):
        rows = slice(start, start + DECISIONS_PER_BLOCK)
        part = take_rows(log, rows)
        weights = importance_weights(part.logged, take_rows(target, rows))
        block = _Block(part, group[rows], len(names), unit[rows])
        sums = list(_block_sums(block, part, weights, take_rows(predicted, rows), bounds))
        totals = [a + b for a, b in zip(totals, sums, strict=True)] if totals else sums
        slots += block.by_group(block.judged)
    return totals, slots


def take_rows(part: Any, rows: Any) -> Any:
    """Return the chosen rows of an array, or of every array in a named tuple; None for None."""
    if part is None:
        return None
    if isinstance(part, np.ndarray):
        return part[rows]
    return type(part)(*(take_rows(column, rows) for column in part))


def _block_sums(
    block: _Block,
    log: SlateLog,
    weights: dict[str, Floats],
    predicted: Predictions | None,
    bounds: Mapping[str, tuple[float, float]],
) -> Iterator[EstimateSums]:
    """Yield the sums of each estimator over a block."""
    reward = np.where(log.judged, log.reward, 0.0)
    observed = _WeightFamily(block, np.ones_like(reward), by_slot=True)
    yield observed.mean("observed", reward, bounds.get("observed"))

    # E[w] = 1 holds in each slot, except for inclusion, where it holds over the slate.
    families = {
        name: _WeightFamily(block, weight, by_slot=name != "inclusion")
        for name, weight in weights.items()
    }
    for name, family in families.items():
        contribution = estimators.ips(family.weight, reward)
        yield family.mean(name, contribution, bounds.get(name))
        yield family.self_normalized(f"SN-{name}", contribution)

        clipped_name = f"clipped {name}"
        contribution = estimators.clipped(family.weight, reward)
        capped = np.minimum(family.weight, estimators.WEIGHT_CAP)
        clipped_family = _WeightFamily(block, capped, by_slot=False)
        yield clipped_family.mean(clipped_name, contribution, bounds.get(clipped_name))

    if predicted is not None:
        yield from _model_based_sums(observed, families, reward, weights, predicted, bounds)


def _model_based_sums(
    observed: _WeightFamily,
    families: Mapping[str, _WeightFamily],
    reward: Floats,
    weights: Mapping[str, Floats],
    q: Predictions,
    bounds: Mapping[str, tuple[float, float]],
) -> Iterator[EstimateSums]:
    """Yield the sums of the estimators that use the reward model's predictions."""
    item = families["IIPS"]
    anywhere = families["inclusion"]
    prefix = families["RIPS"]

    yield observed.mean("DM", estimators.direct(q.expected))

    contribution = estimators.doubly_robust(item.weight, reward, q.shown, q.expected)
    yield item.mean("DR", contribution, bounds.get("DR"))

    # Inclusion weights average 1 over the slate only, so the slot's own effect must stay out.
    shown = q.shown - q.slot
    expected = q.expected - q.slot
    contribution = estimators.doubly_robust(anywhere.weight, reward, shown, expected)
    yield anywhere.mean("DR-inclusion", contribution, bounds.get("DR-inclusion"))

    contribution = estimators.switch(item.weight, reward, q.shown, q.expected)
    yield item.mean("Switch-DR", contribution)

    contribution = estimators.optimistic_shrinkage(item.weight, reward, q.shown, q.expected)
    yield item.mean("DRos", contribution)

    # Unmasked weights: an unjudged slot still counts towards the prefix of those below it.
    contribution = estimators.cascade(weights["RIPS"], reward, q.shown, q.expected_given_above)
    yield prefix.mean("Cascade-DR", contribution, bounds.get("Cascade-DR"))


def _contribution_bounds(
    predicted: Predictions | None, max_weights: Mapping[str, float] | None
) -> dict[str, tuple[float, float]]:
    """Return the range of each estimator's contributions, for those that have a known one."""
    if max_weights is None:
        return {}
    finite = {name: weight for name, weight in max_weights.items() if np.isfinite(weight)}
    bounds = {"observed": (0.0, 1.0)}
    bounds |= {name: (0.0, weight) for name, weight in finite.items()}
    for name, weight in max_weights.items():
        bounds[f"clipped {name}"] = 0.0, min(weight, estimators.WEIGHT_CAP)
    if predicted is None:
        return bounds

    slot_effect = float(np.abs(predicted.slot).max())
    low = min(0.0, *(float(q.min()) - slot_effect for q in predicted[:3]))
    high = max(1.0, *(float(q.max()) + slot_effect for q in predicted[:3]))
    for name, family in (("DR", "IIPS"), ("DR-inclusion", "inclusion"), ("Cascade-DR", "RIPS")):
        if family not in finite:
            continue
        weight = finite[family]
        weight_above = weight if family == "RIPS" else 1.0
        bounds[name] = (
            weight_above * low - weight * high,
            weight_above * high + weight * (1.0 - low),
        )
    return bounds
