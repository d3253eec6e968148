"""Sums over a log, block by block, that every estimator and its interval is made of.

Refuses to know what is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from sanderling_trainer.evaluation.intervals import MOST_UNITS, lots
from sanderling_trainer.evaluation.ope import estimators
from sanderling_trainer.evaluation.ope.propensities import Propensities, weights
from sanderling_trainer.evaluation.ope.reward_model import Predictions

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

BLOCK = 8192


class Slates(NamedTuple):
    """A log of m slates of K slots: reward [m, K] clicks in {0, 1}, judged bool [m, K], group int64 [m] what to
    resample, the logging policies' propensities, and survived float64 [m] in (0, 1], the chance of being in the log."""

    reward: NDArray[Any]
    judged: Bools
    group: NDArray[np.int64]
    logged: Propensities
    survived: Floats


@dataclass(frozen=True)
class Part:
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

    def __add__(self, other: Part) -> Part:
        sums = {
            name: getattr(self, name) + getattr(other, name)
            for name in ("top", "bottom", "slots", "weight")
        }
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
        return np.bincount(self.code, (values @ self.ones) * self.count, self.groups).astype(
            np.float64
        )


class _Family:
    """A family's weights [m, K], 0 where nothing is judged, and their sums [lots, c]."""

    def __init__(self, block: _Block, weight: Floats, by_slot: bool) -> None:
        self.block, self.weight, self.by_slot = block, weight * block.inside, by_slot
        self.bottom = self.sum(self.weight)
        self.slots = block.slots if by_slot else block.slots.sum(axis=1, keepdims=True)
        rows = np.einsum("mk,mk->m", self.weight, self.weight)
        self.health = (
            self.bottom.sum(axis=1, keepdims=True),
            float(rows @ np.square(block.count)),
            self.weight.max(),
        )

    def sum(self, values: Floats) -> Floats:
        """Return the sums of values [m, K], each slot's if the family is normalised slot by slot."""
        return np.asarray(self.block.by_lot @ values) if self.by_slot else self.block.all(values)

    def part(
        self, name: str, contribution: Floats, span: tuple[float, float] | None = None
    ) -> Part:
        """Make the part of a mean of contributions [m, K], known to lie in `span` when that is given."""
        block, slots = self.block, self.slots.sum(axis=1, keepdims=True)
        inside = contribution * block.inside
        units = None if span is None else block.units(inside)
        return Part(name, block.all(inside), slots, slots, *self.health, span, units)

    def normalised(self, name: str, contribution: Floats) -> Part:
        """Make the part of the self-normalised estimator."""
        return Part(name, self.sum(contribution), self.bottom, self.slots, *self.health)


def summed(
    log: Slates,
    target: Propensities,
    predicted: Predictions | None,
    largest: Mapping[str, float] | None,
    rng: np.random.Generator,
) -> tuple[list[Part], Floats]:
    """Return the parts of all estimators over the whole log, block by block, and the judged slots of each group."""
    names, code = np.unique(log.group, return_inverse=True)
    lot, spans = lots(len(names), rng)[code], _spans(predicted, largest)
    parts: list[Part] = []
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
    return (
        part[rows]
        if isinstance(part, np.ndarray)
        else type(part)(*(cut(each, rows) for each in part))
    )


def _parts(
    block: _Block,
    log: Slates,
    found: dict[str, Floats],
    predicted: Predictions | None,
    spans: Mapping[str, Any],
) -> Iterator[Part]:
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
        yield cap.part(
            f"clipped {name}",
            estimators.clipped(family.weight, reward),
            spans.get(f"clipped {name}"),
        )
    if predicted is None:
        return
    q, item, anywhere = predicted, families["IIPS"], families["inclusion"]
    yield observed.part("DM", estimators.direct(q.expected))
    contribution = estimators.doubly_robust(item.weight, reward, q.shown, q.expected)
    yield item.part("DR", contribution, spans.get("DR"))
    contribution = estimators.doubly_robust(
        anywhere.weight, reward, q.shown - q.slot, q.expected - q.slot
    )
    yield anywhere.part("DR-inclusion", contribution, spans.get("DR-inclusion"))
    yield item.part("Switch-DR", estimators.switch(item.weight, reward, q.shown, q.expected))
    yield item.part(
        "DRos", estimators.optimistic_shrinkage(item.weight, reward, q.shown, q.expected)
    )
    contribution = estimators.cascade(found["RIPS"], reward, q.shown, q.above)
    yield families["RIPS"].part("Cascade-DR", contribution, spans.get("Cascade-DR"))


def _spans(
    predicted: Predictions | None, largest: Mapping[str, float] | None
) -> dict[str, tuple[float, float]]:
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
