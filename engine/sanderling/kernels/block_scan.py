"""The k best rows of a table for one query, exactly, without reading most of the rows.

The first pass reads only the blocks, a chunk at a time, and bounds each score from above
(`block_bounds`). A row whose bound reaches the k-th best score so far is scored on its int8 row and
the query's 24 bits, in integers: at once where its estimate, in the middle of the bounds, seems to
reach too, else at the end, when the k-th best score leaves few. The first threshold is the k-th
largest of the maxima of groups of bounds.

`offer` takes eight plain numbers: it is inlined, so that these stay in registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sanderling.kernels import block_bounds, cpu, narrow_bounds
from sanderling.kernels.block_bounds import VECTOR_BYTES, mean_slack
from sanderling.kernels.layout import (
    BLOCK_ROWS,
    CHUNK_ROWS,
    FOUR_BITS,
    LANES,
    MAX_DEFERRED,
    SCRATCH_BEST_ROWS,
    SCRATCH_BEST_SCORES,
    SCRATCH_BOUNDS,
    SCRATCH_COARSE,
    SCRATCH_CODES,
    SCRATCH_DEFERRED_BOUNDS,
    SCRATCH_DEFERRED_ROWS,
    SCRATCH_EXCLUDED,
    SCRATCH_HITS,
    SCRATCH_MASK,
    SCRATCH_STATE,
    STATE_BEST,
    STATE_DEFERRED,
    STATE_ELIGIBLE,
    STATE_LIMITS,
    STATE_MASKED,
    TABLE_BITS,
    TABLE_BLOCK_COUNT,
    TABLE_D,
    TABLE_N,
    TABLE_ROWS,
)
from sanderling.kernels.quantize_query import quantize_query
from sanderling.kernels.simd import (
    broadcast,
    called,
    exported,
    float32s,
    float64s,
    inlined,
    int8s,
    int16s,
    int64s,
    lanes_at_least,
    load_floats,
    lowest_bit,
    maximum,
    prefetch,
    store_floats,
    uint64s,
)
from sanderling.kernels.topk_heap import offer, sort_heap

CACHE_LINE = 64  # bytes
PREFETCH_ROWS = 12  # that memory is asked for before they are scored
MINUS_INFINITY = np.float32(-np.inf)

_bounds = narrow_bounds if cpu.kind() == "simd128" else block_bounds
bound_four_bits = _bounds.bound_four_bits
bound_seven_bits = _bounds.bound_seven_bits


@inlined
def _float32_below(x: Any) -> Any:
    """Return a float32 that is at most x, and near it."""
    near = np.float32(x)
    return near if np.float64(near) <= x else np.float32(x - abs(x) * 1.2e-7 - 1e-44)


@inlined
def _kth_largest(values: Any, size: Any, k: Any) -> Any:
    """Return the k-th largest of the values, which are reordered (Hoare's quickselect)."""
    low = 0
    high = size - 1
    target = k - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i = low
        j = high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break
    return values[target]


@called
def _first_threshold(bounds_address: Any, vectors: Any, maxima_address: Any, k: Any) -> Any:
    """Return a number that at least k of the bounds reach, and few more."""
    groups = 4
    while groups * LANES < 4 * k:
        groups *= 2
    groups = min(groups, vectors)
    if groups * LANES < k:
        return MINUS_INFINITY

    for group in range(groups):
        largest = load_floats(bounds_address + VECTOR_BYTES * group)
        for vector in range(group + groups, vectors, groups):
            largest = maximum(largest, load_floats(bounds_address + VECTOR_BYTES * vector))
        store_floats(maxima_address + VECTOR_BYTES * group, largest)
    return _kth_largest(float32s(maxima_address), groups * LANES, k)


@called
def _find_hits(bounds_address: Any, vectors: Any, threshold: Any, hits: Any) -> Any:
    """Write the positions of the bounds that reach a threshold; return how many there are."""
    thresholds = broadcast(threshold)
    count = 0
    # A block's 64 bounds become one mask of 64 bits.
    for vector in range(0, vectors, 4):
        start = bounds_address + VECTOR_BYTES * vector
        mask = lanes_at_least(load_floats(start), thresholds)
        mask |= lanes_at_least(load_floats(start + VECTOR_BYTES), thresholds) << 16
        mask |= lanes_at_least(load_floats(start + 2 * VECTOR_BYTES), thresholds) << 32
        mask |= lanes_at_least(load_floats(start + 3 * VECTOR_BYTES), thresholds) << 48
        while mask != 0:
            hits[count] = vector * LANES + lowest_bit(mask)
            count += 1
            mask &= mask - 1
    return count


@inlined
def _prefetch_row(table: Any, row: Any) -> None:
    start = table[TABLE_ROWS] + row * table[TABLE_D]
    for offset in range(0, table[TABLE_D], CACHE_LINE):
        prefetch(start + offset)


@called
def _score_deferred(k: Any, table: Any, step: Any, scratch: Any) -> None:
    """Score the deferred rows whose bound still reaches the k-th best score; empty the list."""
    rows = int64s(scratch[SCRATCH_BEST_ROWS])
    scores = float64s(scratch[SCRATCH_BEST_SCORES])
    deferred = int64s(scratch[SCRATCH_DEFERRED_ROWS])
    bounds = float32s(scratch[SCRATCH_DEFERRED_BOUNDS])
    codes_address = scratch[SCRATCH_CODES]
    state = int64s(scratch[SCRATCH_STATE])

    # Sorted out first, so that memory is asked only for rows that are likely to be scored.
    left = 0
    for i in range(state[STATE_DEFERRED]):
        if bounds[i] >= _float32_below(scores[0]):
            deferred[left] = deferred[i]
            bounds[left] = bounds[i]
            left += 1

    for i in range(left):
        _prefetch_row(table, deferred[min(i + PREFETCH_ROWS, left - 1)])
        # The k-th best score may have risen since.
        if bounds[i] >= _float32_below(scores[0]):
            offer(deferred[i], k, table, step, codes_address, scores, rows, state)
    state[STATE_DEFERRED] = 0


@inlined
def _mark_excluded(
    mask_address: Any, rows: Any, count: Any, blocks: Any, n: Any, excluded: Any, state: Any
) -> None:
    """Set the bits of the rows that may not be returned: those of a mask and the listed ones."""
    mask = uint64s(mask_address)
    for block in range(blocks):
        excluded[block] = mask[block] if mask_address != 0 else np.uint64(0)
    for i in range(count):
        row = rows[i]
        bit = np.uint64(1) << np.uint64(row % BLOCK_ROWS)
        # A row that is listed twice, or masked as well, counts once.
        if 0 <= row < n and excluded[row // BLOCK_ROWS] & bit == 0:
            excluded[row // BLOCK_ROWS] |= bit
            state[STATE_ELIGIBLE] -= 1


@called
def _fill_heap(start: Any, vectors: Any, k: Any, table: Any, step: Any, scratch: Any) -> None:
    """Score the best-bounded rows of a chunk until there are k; erase their bounds."""
    rows = int64s(scratch[SCRATCH_BEST_ROWS])
    scores = float64s(scratch[SCRATCH_BEST_SCORES])
    codes_address = scratch[SCRATCH_CODES]
    bounds = float32s(scratch[SCRATCH_BOUNDS])
    hits = int64s(scratch[SCRATCH_HITS])
    state = int64s(scratch[SCRATCH_STATE])

    # The maxima lie where the hits are written afterwards.
    threshold = _first_threshold(
        scratch[SCRATCH_BOUNDS], vectors, scratch[SCRATCH_HITS], k - state[STATE_BEST]
    )
    count = _find_hits(scratch[SCRATCH_BOUNDS], vectors, threshold, hits)
    for i in range(count):
        _prefetch_row(table, start + hits[min(i + PREFETCH_ROWS, count - 1)])
        if bounds[hits[i]] > MINUS_INFINITY:
            offer(start + hits[i], k, table, step, codes_address, scores, rows, state)
        bounds[hits[i]] = MINUS_INFINITY


@called
def _improve_heap(first: Any, vectors: Any, k: Any, table: Any, step: Any, scratch: Any) -> None:
    """Score the rows of a chunk that are likely among the k best; defer those that may be."""
    rows = int64s(scratch[SCRATCH_BEST_ROWS])
    scores = float64s(scratch[SCRATCH_BEST_SCORES])
    deferred = int64s(scratch[SCRATCH_DEFERRED_ROWS])
    deferred_bounds = float32s(scratch[SCRATCH_DEFERRED_BOUNDS])
    codes_address = scratch[SCRATCH_CODES]
    bounds = float32s(scratch[SCRATCH_BOUNDS])
    hits = int64s(scratch[SCRATCH_HITS])
    state = int64s(scratch[SCRATCH_STATE])
    limits = float32s(scratch[SCRATCH_STATE] + 8 * STATE_LIMITS)

    start = first * BLOCK_ROWS
    worst = np.float32(scores[0])
    slack = mean_slack(table, first, limits)
    count = _find_hits(scratch[SCRATCH_BOUNDS], vectors, _float32_below(scores[0]), hits)
    likely = 0
    for i in range(count):
        row = start + hits[i]
        bound = bounds[hits[i]]
        if bound - slack >= worst:
            _prefetch_row(table, row)
            hits[likely] = row
            likely += 1
        else:
            deferred[state[STATE_DEFERRED]] = row
            deferred_bounds[state[STATE_DEFERRED]] = bound
            state[STATE_DEFERRED] += 1
            if state[STATE_DEFERRED] == MAX_DEFERRED:
                _score_deferred(k, table, step, scratch)
    for i in range(likely):
        offer(hits[i], k, table, step, codes_address, scores, rows, state)


@exported
def scan(
    table_address: Any,
    query_address: Any,
    excluded_address: Any,
    excluded_count: Any,
    k: Any,
    scratch_address: Any,
) -> Any:
    """Find the k best rows of a table that are not excluded; return how many there are."""
    table = int64s(table_address)
    scratch = int64s(scratch_address)
    blocks = table[TABLE_BLOCK_COUNT]
    n = table[TABLE_N]
    bits = table[TABLE_BITS]
    state = int64s(scratch[SCRATCH_STATE])
    limits = float32s(scratch[SCRATCH_STATE] + 8 * STATE_LIMITS)
    excluded = uint64s(scratch[SCRATCH_EXCLUDED])

    state[STATE_BEST] = 0
    state[STATE_DEFERRED] = 0
    state[STATE_ELIGIBLE] = n - state[STATE_MASKED]
    listed = int64s(excluded_address)
    _mark_excluded(scratch[SCRATCH_MASK], listed, excluded_count, blocks, n, excluded, state)

    query = float32s(query_address)
    zero = 8.0 if bits == FOUR_BITS else 64.0
    codes = int16s(scratch[SCRATCH_CODES])
    coarse = int8s(scratch[SCRATCH_COARSE])
    step = quantize_query(query, table[TABLE_D], zero, codes, coarse, limits)

    for first in range(0, blocks, CHUNK_ROWS // BLOCK_ROWS):
        last = min(first + CHUNK_ROWS // BLOCK_ROWS, blocks)
        vectors = (last - first) * BLOCK_ROWS // LANES
        if bits == FOUR_BITS:
            bound_four_bits(table, first, last, scratch)
        else:
            bound_seven_bits(table, first, last, scratch)
        if state[STATE_BEST] < k:
            _fill_heap(first * BLOCK_ROWS, vectors, k, table, step, scratch)
        if state[STATE_BEST] == k:
            _improve_heap(first, vectors, k, table, step, scratch)
    if state[STATE_DEFERRED] > 0:
        _score_deferred(k, table, step, scratch)

    best = state[STATE_BEST]
    sort_heap(float64s(scratch[SCRATCH_BEST_SCORES]), int64s(scratch[SCRATCH_BEST_ROWS]), best)
    return best
