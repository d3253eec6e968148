"""Exact top-k by numpy alone, for machines without compiled kernels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.quantization import quantize_query
from sanderling.ranking.search_types import Int8Rows, RowMask, Rows, SearchResult

_BLOCK_ROWS = 4096  # converted to float32 at a time, so that memory stays bounded


def numpy_top(
    table: Int8Rows,
    query: NDArray[np.float32],
    k: int,
    excluded: Rows | None,
    mask: RowMask | None,
) -> SearchResult:
    """Return the k best rows for a query float32 [d], as `Int8Index.top` does.

    All rows are multiplied in float32; those that may be among the best once more in doubles, which
    hold the integer products exactly.
    """
    codes, step = quantize_query(query)
    rounded = (codes * step).astype(np.float32)
    approximate = _approximate_scores(table, rounded)
    if excluded is not None:
        approximate[excluded[(excluded >= 0) & (excluded < len(approximate))]] = -np.inf
    if mask is not None:
        approximate[mask.hidden] = -np.inf

    eligible = int(np.count_nonzero(approximate > -np.inf))
    k = min(k, eligible)
    if k == 0:
        return SearchResult(np.empty(0, np.int64), np.empty(0), eligible)

    # At least k rows score no less than `threshold - error`, and float32 shows a row that does at
    # no less than `threshold - 2 * error`.
    threshold = float(np.partition(approximate, len(approximate) - k)[len(approximate) - k])
    error = _max_error(table, rounded, threshold)
    candidates = np.flatnonzero(approximate >= threshold - 2.0 * error)
    candidates = candidates[approximate[candidates] > -np.inf]
    dots = table.rows[candidates].astype(np.float64) @ codes
    scores = dots * table.scale[candidates] * step + table.bias[candidates]
    order = np.lexsort((candidates, -scores))[:k]
    return SearchResult(candidates[order], scores[order], eligible)


def _approximate_scores(table: Int8Rows, query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scores float32 [n] of all rows."""
    scores = np.empty(len(table.rows), np.float32)
    buffer = np.empty((min(_BLOCK_ROWS, len(table.rows)), len(query)), np.float32)
    for start in range(0, len(table.rows), _BLOCK_ROWS):
        rows = table.rows[start : start + _BLOCK_ROWS]
        block = buffer[: len(rows)]
        block[:] = rows
        np.dot(block, query, out=scores[start : start + _BLOCK_ROWS])
    scores *= table.scale
    scores += table.bias
    return scores


def _max_error(table: Int8Rows, query: NDArray[np.float32], threshold: float) -> float:
    """Return what float32 can lose of any score.

    Each of d + 3 roundings loses at most 2^-24 of the magnitude.
    """
    norm = float(np.abs(query).sum(dtype=np.float64))
    magnitude = 128.0 * norm * table.max_scale + table.max_bias
    return (query.size + 4) * 2.0**-23 * magnitude + abs(threshold) * 2.0**-20
