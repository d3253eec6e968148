"""The k best rows of a table for one query, exactly, without reading most of the rows.

The first pass reads only the blocks (`layout`), a chunk at a time. With q = e u + rest, u the query
in int8, Cauchy and Schwarz bound each score:

    q . v_i + b_i  <=  a_i (e u . (c_i - z) + |q| max |residual| / a + |rest| max |c - z|) + b_i

A row whose bound reaches the k-th best score so far is scored on its int8 row and the query's 24
bits, in integers: at once where its estimate, in the middle of the bounds, seems to reach too, else
at the end, when the k-th best score leaves few. The first threshold is the k-th largest of the
maxima of groups of bounds.

`_write_bounds` and `offer` take eight and nine plain numbers: they are inlined, so that these stay
in registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sanderling.kernels.dot_products import MAX_DOT4, dot4, dot7, fold_sums, zero_sums
from sanderling.kernels.layout import (
    BLOCK_ROWS,
    CHUNK_ROWS,
    EXTREME_CODE,
    EXTREME_RESIDUAL,
    FOUR_BITS,
    GROUP_DIMS,
    LANES,
    LIMIT_NORM,
    LIMIT_OFFSET,
    LIMIT_REST,
    LIMIT_ROUNDING,
    LIMIT_STEP,
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
    SEVEN_BITS,
    STATE_BEST,
    STATE_DEFERRED,
    STATE_ELIGIBLE,
    STATE_LIMITS,
    STATE_MASKED,
    TABLE_BITS,
    TABLE_BLOCK_COUNT,
    TABLE_BLOCKS,
    TABLE_D,
    TABLE_GROUPS,
    TABLE_N,
    TABLE_ROWS,
    TAIL_BIASES,
    TAIL_BYTES,
    TAIL_EXTREMES,
)
from sanderling.kernels.quantize_query import quantize_query
from sanderling.kernels.simd import (
    add,
    broadcast,
    called,
    exported,
    float32s,
    float64s,
    float_of,
    inlined,
    int8s,
    int16s,
    int64s,
    lanes_at_least,
    load_floats,
    lowest_bit,
    masked_out,
    maximum,
    plane_size,
    prefetch,
    store_floats,
    uint16s,
    uint64s,
    upper_bounds,
    zero_ints,
)
from sanderling.kernels.topk_heap import offer, sort_heap

CACHE_LINE = 64  # bytes
PREFETCH_ROWS = 12  # that memory is asked for before they are scored
VECTOR_BYTES = 64  # of sixteen float32
MINUS_INFINITY = np.float32(-np.inf)


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


@inlined
def _mean_slack(table: Any, block: Any, limits: Any) -> Any:
    """Return how far the bounds of a block's rows lie above their estimates, on average."""
    plane_bytes = plane_size(table[TABLE_GROUPS], table[TABLE_BITS])
    tail = table[TABLE_BLOCKS] + block * (plane_bytes + TAIL_BYTES) + plane_bytes
    steps = uint16s(tail)
    extremes = float32s(tail + TAIL_EXTREMES)
    step_sum = np.float32(0)
    for lane in range(BLOCK_ROWS):
        step_sum += float_of(np.uint32(steps[lane]) << np.uint32(16))
    return (
        step_sum
        * np.float32(1 / BLOCK_ROWS)
        * (
            limits[LIMIT_NORM] * extremes[EXTREME_RESIDUAL]
            + limits[LIMIT_REST] * extremes[EXTREME_CODE]
            + limits[LIMIT_ROUNDING]
        )
    )


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
def _write_bounds(
    sums0: Any,
    sums1: Any,
    sums2: Any,
    sums3: Any,
    tail: Any,
    excluded: Any,
    steps: Any,
    limits: Any,
    bounds_address: Any,
) -> None:
    """Write the bounds of a block's rows from their sums; excluded ones get minus infinity."""
    extremes = float32s(tail + TAIL_EXTREMES)
    offsets = broadcast(
        limits[LIMIT_OFFSET]
        + limits[LIMIT_NORM] * extremes[EXTREME_RESIDUAL]
        + limits[LIMIT_REST] * extremes[EXTREME_CODE]
        + limits[LIMIT_ROUNDING]
    )
    # Sixteen steps or biases in bfloat16 are 32 bytes.
    biases = tail + TAIL_BIASES
    bounds0 = upper_bounds(sums0, steps, offsets, tail, biases)
    bounds1 = upper_bounds(sums1, steps, offsets, tail + 32, biases + 32)
    bounds2 = upper_bounds(sums2, steps, offsets, tail + 64, biases + 64)
    bounds3 = upper_bounds(sums3, steps, offsets, tail + 96, biases + 96)
    if excluded != 0:
        bounds0 = masked_out(bounds0, excluded)
        bounds1 = masked_out(bounds1, excluded >> np.uint64(16))
        bounds2 = masked_out(bounds2, excluded >> np.uint64(32))
        bounds3 = masked_out(bounds3, excluded >> np.uint64(48))
    store_floats(bounds_address, bounds0)
    store_floats(bounds_address + VECTOR_BYTES, bounds1)
    store_floats(bounds_address + 2 * VECTOR_BYTES, bounds2)
    store_floats(bounds_address + 3 * VECTOR_BYTES, bounds3)


@called
def _bound_four_bits(table: Any, first: Any, last: Any, scratch: Any) -> None:
    """Write the upper bounds of the scores of some blocks' rows, from planes of four bits."""
    coarse_address = scratch[SCRATCH_COARSE]
    bounds_address = scratch[SCRATCH_BOUNDS]
    excluded = uint64s(scratch[SCRATCH_EXCLUDED])
    limits = float32s(scratch[SCRATCH_STATE] + 8 * STATE_LIMITS)
    groups = table[TABLE_GROUPS]
    steps = broadcast(limits[LIMIT_STEP])
    size = plane_size(groups, FOUR_BITS) + TAIL_BYTES
    for block in range(first, last):
        start = table[TABLE_BLOCKS] + block * size
        sums0, sums1, sums2, sums3 = zero_ints(), zero_ints(), zero_ints(), zero_ints()
        # Partial sums are narrow with some instruction sets: they are folded before they overflow.
        for batch in range(0, groups, MAX_DOT4):
            part0, part1, part2, part3 = zero_sums(), zero_sums(), zero_sums(), zero_sums()
            for group in range(batch, min(batch + MAX_DOT4, groups)):
                plane = start + group * BLOCK_ROWS * 4
                query = coarse_address + group * GROUP_DIMS
                part0 = dot4(part0, plane, query)
                part1 = dot4(part1, plane + 64, query)
                part2 = dot4(part2, plane + 128, query)
                part3 = dot4(part3, plane + 192, query)
            sums0 = add(sums0, fold_sums(part0))
            sums1 = add(sums1, fold_sums(part1))
            sums2 = add(sums2, fold_sums(part2))
            sums3 = add(sums3, fold_sums(part3))
        tail = start + size - TAIL_BYTES
        out = bounds_address + (block - first) * 4 * BLOCK_ROWS
        _write_bounds(sums0, sums1, sums2, sums3, tail, excluded[block], steps, limits, out)


@called
def _bound_seven_bits(table: Any, first: Any, last: Any, scratch: Any) -> None:
    """Write the upper bounds of the scores of some blocks' rows, from planes of seven bits."""
    coarse_address = scratch[SCRATCH_COARSE]
    bounds_address = scratch[SCRATCH_BOUNDS]
    excluded = uint64s(scratch[SCRATCH_EXCLUDED])
    limits = float32s(scratch[SCRATCH_STATE] + 8 * STATE_LIMITS)
    groups = table[TABLE_GROUPS]
    steps = broadcast(limits[LIMIT_STEP])
    size = plane_size(groups, SEVEN_BITS) + TAIL_BYTES
    for block in range(first, last):
        start = table[TABLE_BLOCKS] + block * size
        sums0, sums1, sums2, sums3 = zero_ints(), zero_ints(), zero_ints(), zero_ints()
        for half_group in range(2 * groups):
            plane = start + half_group * BLOCK_ROWS * 4
            query = coarse_address + half_group * 4
            sums0 = dot7(sums0, plane, query)
            sums1 = dot7(sums1, plane + 64, query)
            sums2 = dot7(sums2, plane + 128, query)
            sums3 = dot7(sums3, plane + 192, query)
        tail = start + size - TAIL_BYTES
        out = bounds_address + (block - first) * 4 * BLOCK_ROWS
        _write_bounds(sums0, sums1, sums2, sums3, tail, excluded[block], steps, limits, out)


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
    slack = _mean_slack(table, first, limits)
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
            _bound_four_bits(table, first, last, scratch)
        else:
            _bound_seven_bits(table, first, last, scratch)
        if state[STATE_BEST] < k:
            _fill_heap(first * BLOCK_ROWS, vectors, k, table, step, scratch)
        if state[STATE_BEST] == k:
            _improve_heap(first, vectors, k, table, step, scratch)
    if state[STATE_DEFERRED] > 0:
        _score_deferred(k, table, step, scratch)

    best = state[STATE_BEST]
    sort_heap(float64s(scratch[SCRATCH_BEST_SCORES]), int64s(scratch[SCRATCH_BEST_ROWS]), best)
    return best
