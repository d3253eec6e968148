"""A heap of the k best rows: the root is the worst; of equal scores the later row is worse."""

from __future__ import annotations

from typing import Any

import numpy as np

from sanderling.kernels.dot_products import row_dot
from sanderling.kernels.layout import (
    LANES,
    STATE_BEST,
    TABLE_BIAS,
    TABLE_D,
    TABLE_ROWS,
    TABLE_SCALE,
)
from sanderling.kernels.simd import (
    called,
    float32s,
    inlined,
    int8s,
    int16s,
    load_int8s,
    load_int16s,
    multiply_add,
    sum_lanes,
    zero_ints,
)


@inlined
def _is_worse(score: Any, row: Any, other_score: Any, other_row: Any) -> Any:
    return score < other_score or (score == other_score and row > other_row)


@inlined
def _replace_root(scores: Any, rows: Any, size: Any, score: Any, row: Any) -> None:
    """Put a row in place of the heap's root, and sift it down."""
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= size:
            break
        if child + 1 < size and _is_worse(
            scores[child + 1], rows[child + 1], scores[child], rows[child]
        ):
            child += 1
        if not _is_worse(scores[child], rows[child], score, row):
            break
        scores[parent] = scores[child]
        rows[parent] = rows[child]
        parent = child
    scores[parent] = score
    rows[parent] = row


@inlined
def _push(scores: Any, rows: Any, size: Any, score: Any, row: Any) -> None:
    """Add a row to a heap of `size` rows, and sift it up."""
    child = size
    while child > 0:
        parent = (child - 1) // 2
        if not _is_worse(score, row, scores[parent], rows[parent]):
            break
        scores[child] = scores[parent]
        rows[child] = rows[parent]
        child = parent
    scores[child] = score
    rows[child] = row


@inlined
def _exact_dot(row_address: Any, codes_address: Any, d: Any) -> Any:
    """Return the product of an int8 row with the query's codes, high and low twelve bits.

    Vectors of 32 dimensions, then of 16, then single ones: rows lie side by side, so nothing beyond
    d may be read.
    """
    vector_end = d // LANES * LANES
    double_end = d // (2 * LANES) * 2 * LANES
    padded = (d + LANES - 1) // LANES * LANES
    high = zero_ints()
    low = zero_ints()
    for j in range(0, double_end, 2 * LANES):
        high = row_dot(high, row_address + j, codes_address + 2 * j)
        low = row_dot(low, row_address + j, codes_address + 2 * (padded + j))
    for j in range(double_end, vector_end, LANES):
        row = load_int8s(row_address + j)
        high = multiply_add(high, row, load_int16s(codes_address + 2 * j))
        low = multiply_add(low, row, load_int16s(codes_address + 2 * (padded + j)))

    product = sum_lanes(high) * 4096 + sum_lanes(low)
    values = int8s(row_address)
    codes = int16s(codes_address)
    for j in range(vector_end, d):
        product += np.int64(values[j]) * (np.int64(codes[j]) * 4096 + np.int64(codes[padded + j]))
    return product


@inlined
def offer(
    row: Any, k: Any, table: Any, step: Any, codes_address: Any, scores: Any, rows: Any, state: Any
) -> None:
    """Score one row exactly, and keep it if it is among the k best so far.

    Eight plain numbers and addresses, since this is inlined into the innermost loop.
    """
    d = table[TABLE_D]
    scale = float32s(table[TABLE_SCALE])
    bias = float32s(table[TABLE_BIAS])
    product = np.float64(_exact_dot(table[TABLE_ROWS] + row * d, codes_address, d))
    score = product * np.float64(scale[row]) * step + np.float64(bias[row])

    size = state[STATE_BEST]
    if size < k:
        _push(scores, rows, size, score, row)
        state[STATE_BEST] = size + 1
    elif _is_worse(scores[0], rows[0], score, row):
        _replace_root(scores, rows, size, score, row)


@called
def sort_heap(scores: Any, rows: Any, size: Any) -> None:
    """Turn the heap into a list, best first."""
    for last in range(size - 1, 0, -1):
        score = scores[last]
        row = rows[last]
        scores[last] = scores[0]
        rows[last] = rows[0]
        _replace_root(scores, rows, last, score, row)
