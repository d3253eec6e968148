"""Exact top-k by numpy alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.quantization import quantize_query
from sanderling.ranking.search_types import RowMask, Rows, SearchResult

if TYPE_CHECKING:
    from sanderling.ranking.index import Int8Index

_BLOCK = 4096


def numpy_top(
    table: Int8Index,
    query: NDArray[np.float32],
    k: int,
    excluded: Rows | None,
    hidden: RowMask | None,
) -> SearchResult:
    """Search by numpy alone: float32 products of all rows, then doubles for those that may be among the best."""
    codes, step = quantize_query(query)
    approximate = np.empty(len(table.rows), np.float32)
    rounded = (codes * step).astype(np.float32)
    room = np.empty((min(_BLOCK, len(table.rows)), len(rounded)), np.float32)
    for start in range(0, len(table.rows), _BLOCK):
        rows = table.rows[start : start + _BLOCK]
        block = room[: len(rows)]
        block[:] = rows
        np.dot(block, rounded, out=approximate[start : start + _BLOCK])
    approximate *= table.scale
    approximate += table.bias
    if excluded is not None:
        approximate[excluded[(excluded >= 0) & (excluded < len(approximate))]] = -np.inf
    if hidden is not None:
        approximate[hidden.rows] = -np.inf
    eligible = int(np.count_nonzero(approximate > -np.inf))
    k = min(k, eligible)
    if k == 0:
        return SearchResult(np.empty(0, np.int64), np.empty(0), eligible)
    line = float(np.partition(approximate, len(approximate) - k)[len(approximate) - k])
    near = np.flatnonzero(approximate >= line - 2.0 * _error(table, rounded, line))
    near = near[approximate[near] > -np.inf]
    scores = (
        table.rows[near].astype(np.float64) @ codes * table.scale[near] * step + table.bias[near]
    )
    order = np.lexsort((near, -scores))[:k]
    return SearchResult(near[order], scores[order], eligible)


def _error(table: Int8Index, query: NDArray[np.float32], line: float) -> float:
    """Return a bound of what float32 can lose of any score: each of d + 3 roundings loses 2^-24 of the magnitude."""
    magnitude = (
        128.0 * float(np.abs(query).sum(dtype=np.float64)) * table.largest[0] + table.largest[1]
    )
    return (query.size + 4) * 2.0**-23 * magnitude + abs(line) * 2.0**-20
