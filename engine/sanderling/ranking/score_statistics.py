"""Mean and spread of the scores of any user over a catalog, in closed form."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.index import Int8Index

BLOCK_ROWS = 4096  # converted at a time, so that memory stays bounded
ROUNDING = 1e-12  # of a variance, relative to the square of the mean
Vector = NDArray[np.float32]
Floats = NDArray[np.float64]


class Spread(NamedTuple):
    """The mean of some scores, and their standard deviation; 1 where all are equal."""

    mean: float
    deviation: float


class ScoreStatistics:
    """Moments of the n items (v, b) of an index: vector and bias."""

    def __init__(self, index: Int8Index) -> None:
        d = index.rows.shape[1]
        n = max(len(index.rows), 1)
        total = np.zeros(d + 1)
        products = np.zeros((d + 1, d + 1))
        for start in range(0, len(index.rows), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            vectors = index.rows[part] * index.scale[part, None]
            items = np.concatenate([vectors, index.bias[part, None]], axis=1).astype(np.float64)
            total += items.sum(axis=0)
            products += items.T @ items
        self._mean: Floats = total / n
        self._covariance: Floats = products / n - np.outer(self._mean, self._mean)

    def of(self, query: Vector, bias_weight: float) -> Spread:
        """Return the spread of `query · v + bias_weight b` over the items, for a query [d]."""
        weights = np.append(query.astype(np.float64), bias_weight)
        variance = float(weights @ self._covariance @ weights)
        mean = float(weights @ self._mean)
        is_constant = variance <= ROUNDING * mean**2
        return Spread(mean, 1.0 if is_constant else math.sqrt(variance))
