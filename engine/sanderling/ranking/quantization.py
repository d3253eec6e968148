"""Vectors -> int8 rows, and queries -> the integer codes that rows are multiplied with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sanderling.kernels.layout import MAX_CODE, MAX_VALUE, MIN_VALUE


def quantize_query(query: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Return a query q [d] as integers z of at most 23 bits and a sign, and their step e.

    q is e z up to the rounding (docs/MATH.md).

    A query without a direction, not finite or outside 1e-12 … 1e12, becomes zeros, with step 0.
    """
    peak = float(np.abs(query).max(initial=0.0))
    if not MIN_VALUE <= peak <= MAX_VALUE:
        return np.zeros(query.size), 0.0
    return np.rint(query.astype(np.float64) * (MAX_CODE / peak)), peak / MAX_CODE


def quantize_rows(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return int8 rows and scales [n] for vectors [n, d], nearest to `rows * scale[:, None]`.

    Vectors without a number beyond 1e-10 count as zero.
    """
    peak = np.abs(vectors).max(axis=1, initial=0.0)
    scale = np.where(peak > 128 * MIN_VALUE, peak / 127.0, 1.0).astype(np.float32)
    return np.rint(vectors / scale[:, None]).clip(-127, 127).astype(np.int8), scale
