"""Exact top-k over int8 rows. The only room that knows numba.

The score of row i is `(dot_i * scale_i) * step + bias_i` in float64, where dot_i is the exact integer product of the
int8 row with the query rounded to at most 15 bits and a sign, and `step` undoes that rounding. Integers make the result
independent of the order of summation, so numpy and numba give the same scores bit for bit. Order: score descending,
then row ascending.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]
Kernel = Callable[..., tuple[Rows, Scores]]

_BLOCK = 4096


def quantize_query(query: NDArray[np.float32]) -> tuple[NDArray[np.int16], float]:
    """Round a query [d] to int16 codes and their step, so that an int32 can hold any dot product with int8 rows."""
    largest = min(32767, (2**31 - 1) // (128 * query.size))
    peak = float(np.abs(query).max(initial=0.0))
    if peak == 0.0 or not np.isfinite(peak):
        return np.zeros(query.size, np.int16), 0.0
    step = peak / largest
    return np.rint(query.astype(np.float64) / step).astype(np.int16), step


def quantize_rows(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round vectors [n, d] to int8 rows and a scale for each, so that `rows * scale[:, None]` is nearest to them."""
    peak = np.abs(vectors).max(axis=1, initial=0.0)
    scale = np.where(peak > 0, peak / 127.0, 1.0).astype(np.float32)
    return np.rint(vectors / scale[:, None]).clip(-127, 127).astype(np.int8), scale


def top(
    rows: NDArray[np.int8],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    query: NDArray[np.float32],
    k: int,
    excluded: NDArray[np.bool_],
) -> tuple[Rows, Scores]:
    """Return the rows and scores of the k best among the rows not excluded (fewer, if fewer are left).

    rows int8 [n, d], scale and bias float32 [n], query float32 [d], excluded bool [n].
    """
    codes, step = quantize_query(query)
    return kernel()(rows, scale, bias, codes, step, k, excluded)


@cache
def kernel() -> Kernel:
    """Return the kernel that `SANDERLING_KERNELS` names (`numba` or `numpy`); by default numba where installed."""
    wanted = os.environ.get("SANDERLING_KERNELS", "")
    if wanted not in ("", "numba", "numpy"):
        raise ValueError(f"SANDERLING_KERNELS: expected numba or numpy, found {wanted!r}")
    if wanted == "numpy":
        return numpy_top
    try:
        return _numba_kernel()
    except ImportError:
        if wanted == "numba":
            raise
        return numpy_top


def numpy_top(
    rows: NDArray[np.int8],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    codes: NDArray[np.int16],
    step: float,
    k: int,
    excluded: NDArray[np.bool_],
) -> tuple[Rows, Scores]:
    """The portable kernel. Doubles hold these integers exactly, so BLAS may sum them in any order."""
    scores = np.empty(len(rows))
    exact = codes.astype(np.float64)
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        scores[block] = rows[block].astype(np.float64) @ exact
    scores = scores * scale * step + bias
    scores[excluded] = -np.inf
    k = min(k, len(rows) - int(np.count_nonzero(excluded)))
    if k <= 0:
        return np.empty(0, np.int64), np.empty(0)
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    found = np.flatnonzero(scores >= threshold)
    found = found[np.lexsort((found, -scores[found]))[:k]]
    return found, scores[found]


def scan(
    rows: Any, scale: Any, bias: Any, codes: Any, step: float, excluded: Any, out_rows: Any, out_scores: Any
) -> int:
    """Keep the best rows in the heap `out_rows`, `out_scores` [k]; return how many there are. Runs compiled or not.

    The heap's root is the worst kept row: lowest score, then highest row. Rows come in ascending order, so a later row
    of equal score never displaces an earlier one.
    """
    k = out_rows.size
    kept = 0
    for row in range(rows.shape[0]):
        if excluded[row]:
            continue
        dot = np.int32(0)
        for j in range(codes.size):
            dot = np.int32(dot + np.int32(rows[row, j]) * np.int32(codes[j]))
        score = (np.float64(dot) * np.float64(scale[row])) * step + np.float64(bias[row])
        if kept < k:
            at = kept
            kept += 1
            while at > 0:
                parent = (at - 1) // 2
                if out_scores[parent] < score:
                    break
                out_scores[at], out_rows[at] = out_scores[parent], out_rows[parent]
                at = parent
            out_scores[at], out_rows[at] = score, row
        elif score > out_scores[0]:
            at = 0
            while True:
                child = 2 * at + 1
                if child >= k:
                    break
                other = child + 1
                if other < k and (
                    out_scores[other] < out_scores[child]
                    or (out_scores[other] == out_scores[child] and out_rows[other] > out_rows[child])
                ):
                    child = other
                if out_scores[child] >= score:
                    break
                out_scores[at], out_rows[at] = out_scores[child], out_rows[child]
                at = child
            out_scores[at], out_rows[at] = score, row
    return kept


def _numba_kernel() -> Kernel:
    import numba

    try:
        compiled = numba.njit(cache=True, nogil=True)(scan)
    except RuntimeError:
        compiled = numba.njit(nogil=True)(scan)
    return _kernel_of(compiled)


def _kernel_of(scan: Callable[..., int]) -> Kernel:
    def heap_top(
        rows: NDArray[np.int8],
        scale: NDArray[np.float32],
        bias: NDArray[np.float32],
        codes: NDArray[np.int16],
        step: float,
        k: int,
        excluded: NDArray[np.bool_],
    ) -> tuple[Rows, Scores]:
        found = np.empty(max(min(k, len(rows)), 0), np.int64)
        scores = np.empty(found.size)
        if found.size == 0:
            return found, scores
        kept = scan(rows, scale, bias, codes, step, excluded, found, scores)
        order = np.lexsort((found[:kept], -scores[:kept]))
        return found[order], scores[order]

    return heap_top
