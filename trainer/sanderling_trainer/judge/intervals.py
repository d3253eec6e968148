"""Bootstrap intervals over users. Refuses to know what is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
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
    return _interval(top.sum() / bottom.sum(), _ratios(top, bottom, _weights(len(top), rng)))


def mean(values: NDArray[np.float64], rng: np.random.Generator) -> Interval:
    """Return the mean of values float64 [u] with users resampled; NaN for no users."""
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    return ratio(values, np.ones(len(values)), rng)


def ratio_difference(
    first: tuple[NDArray[np.float64], NDArray[np.float64]],
    second: tuple[NDArray[np.float64], NDArray[np.float64]],
    rng: np.random.Generator,
) -> Interval:
    """Return ratio(first) - ratio(second), paired: both are of the same users, resampled together."""
    weights = _weights(len(first[0]), rng)
    value = first[0].sum() / first[1].sum() - second[0].sum() / second[1].sum()
    return _interval(value, _ratios(*first, weights) - _ratios(*second, weights))


def _weights(users: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.multinomial(users, np.full(users, 1.0 / users), size=RESAMPLES).astype(np.float64)


def _ratios(top: NDArray[np.float64], bottom: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return (weights @ top) / np.maximum(weights @ bottom, 1e-300)


def _interval(value: float, resampled: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(value), float(low), float(high))
