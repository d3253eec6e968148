"""The k best rows so far, scored exactly: a heap whose root is the worst; of equal scores the later row is worse.

`state[0]` counts the kept rows. Refuses to know bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sanderling.kernels.dot_products import row_dot
from sanderling.kernels.layout import LANES
from sanderling.kernels.simd import (
    bytes_at,
    called,
    float32s,
    inlined,
    int8s,
    int16s,
    multiply_add,
    no_ints,
    shorts_at,
    total,
)


@inlined
def _worse(score: Any, row: Any, other_score: Any, other_row: Any) -> Any:
    return score < other_score or (score == other_score and row > other_row)


@inlined
def _sink(scores: Any, rows: Any, size: Any, score: Any, row: Any) -> None:
    """Replace the root of a heap."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _worse(
            scores[child + 1], rows[child + 1], scores[child], rows[child]
        ):
            child += 1
        if not _worse(scores[child], rows[child], score, row):
            break
        scores[at], rows[at] = scores[child], rows[child]
        at = child
    scores[at], rows[at] = score, row


@inlined
def _rise(scores: Any, rows: Any, kept: Any, score: Any, row: Any) -> None:
    """Add one to a heap of `kept`."""
    at = kept
    while at > 0:
        parent = (at - 1) // 2
        if not _worse(score, row, scores[parent], rows[parent]):
            break
        scores[at], rows[at] = scores[parent], rows[parent]
        at = parent
    scores[at], rows[at] = score, row


@inlined
def _dot(row_at: Any, codes_at: Any, d: Any) -> Any:
    """Return the product of an int8 row with the query's codes, high and low twelve bits one after the other."""
    wide, whole = d // LANES * LANES, (d + LANES - 1) // LANES * LANES
    wider = d // (2 * LANES) * 2 * LANES
    high, low = no_ints(), no_ints()
    for j in range(0, wider, 2 * LANES):
        high = row_dot(high, row_at + j, codes_at + 2 * j)
        low = row_dot(low, row_at + j, codes_at + 2 * (whole + j))
    for j in range(wider, wide, LANES):
        row = bytes_at(row_at + j)
        high = multiply_add(high, row, shorts_at(codes_at + 2 * j))
        low = multiply_add(low, row, shorts_at(codes_at + 2 * (whole + j)))
    product = total(high) * 4096 + total(low)
    values, codes = int8s(row_at), int16s(codes_at)
    for j in range(wide, d):
        product += np.int64(values[j]) * (np.int64(codes[j]) * 4096 + np.int64(codes[whole + j]))
    return product


@inlined
def consider(
    row: Any, k: Any, table: Any, step: Any, codes_at: Any, scores: Any, found: Any, state: Any
) -> None:
    """Score one row exactly, and keep it if it is among the k best so far."""
    d, scale, bias = table[5], float32s(table[6]), float32s(table[7])
    product = np.float64(_dot(table[3] + row * d, codes_at, d))
    score = product * np.float64(scale[row]) * step + np.float64(bias[row])
    kept = state[0]
    if kept < k:
        _rise(scores, found, kept, score, row)
        state[0] = kept + 1
    elif _worse(scores[0], found[0], score, row):
        _sink(scores, found, kept, score, row)


@called
def ordered(scores: Any, rows: Any, kept: Any) -> None:
    """Turn the heap into a list, best first."""
    for left in range(kept - 1, 0, -1):
        score, row = scores[left], rows[left]
        scores[left], rows[left] = scores[0], rows[0]
        _sink(scores, rows, left, score, row)
