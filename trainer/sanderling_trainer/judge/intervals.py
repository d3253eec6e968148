"""Bootstrap intervals over users. Refuses to know what is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
BLOCK = 2**22  # draws in memory at once
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value and its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13) at 95 %."""

    value: float
    low: float
    high: float

    def plain(self) -> dict[str, float]:
        """Return it as plain data."""
        return asdict(self)


def ratio(top: NDArray[np.float64], bottom: NDArray[np.float64], rng: np.random.Generator) -> Interval:
    """Return sum(top) / sum(bottom) with users resampled; top and bottom float64 [u], bottom's sum positive."""
    return percentiles(top.sum() / bottom.sum(), _quotient(*resample(np.stack([top, bottom], axis=1), rng).T))


def mean(values: NDArray[np.float64], rng: np.random.Generator) -> Interval:
    """Return the mean of values float64 [u] with users resampled; at least one."""
    return ratio(values, np.ones(len(values)), rng)


def ratio_difference(
    first: tuple[NDArray[np.float64], NDArray[np.float64]],
    second: tuple[NDArray[np.float64], NDArray[np.float64]],
    rng: np.random.Generator,
) -> Interval:
    """Return ratio(first) - ratio(second), paired: both are of the same users, resampled together."""
    value = first[0].sum() / first[1].sum() - second[0].sum() / second[1].sum()
    tops_and_bottoms = resample(np.stack([*first, *second], axis=1), rng).T
    return percentiles(value, _quotient(*tops_and_bottoms[:2]) - _quotient(*tops_and_bottoms[2:]))


def resample(values: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the sums float64 [2000, c] of values float64 [u, c] over users drawn again with replacement.

    A few resamples at a time, so that millions of users fit in memory.
    """
    users = len(values)
    chances, at_once = np.full(users, 1.0 / users), max(1, BLOCK // users)
    blocks = [min(at_once, RESAMPLES - done) for done in range(0, RESAMPLES, at_once)]
    return np.concatenate([rng.multinomial(users, chances, size=block).astype(np.float64) @ values for block in blocks])


def percentiles(value: float, resampled: NDArray[np.float64]) -> Interval:
    """Return a value with the 95 % interval of its resampled values."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))


def _quotient(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    return top / np.maximum(bottom, 1e-300)
