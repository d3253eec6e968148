"""The k best rows of a table for one query, exactly, without reading most of the rows.

The first pass reads only the blocks (`layout`), a chunk at a time. With q = e u + rest, u the query in int8, Cauchy and
Schwarz bound each score:

    q . v_i + b_i  <=  a_i (e u . (c_i - z) + |q| max |residual| / a + |rest| max |c - z|) + b_i

A row whose bound reaches the k-th best score so far is scored on its int8 row and the query's 24 bits, in integers:
soon where its estimate, in the middle of the bounds, seems to reach too, else at the end, when the k-th best score
leaves few. The first line to reach is the k-th largest of the maxima of groups of bounds. Bare: addresses in, results
in `scratch`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sanderling.kernels.dot_products import MOST_HALVES, folded, half_dot, no_sums, whole_dot
from sanderling.kernels.layout import CHUNK, GROUP, HALF, LANES, ROWS, TAIL, WAITING, WHOLE
from sanderling.kernels.quantize_query import quantize
from sanderling.kernels.simd import (
    added,
    all_floats,
    called,
    exported,
    float32s,
    float64s,
    float_of,
    floats_at,
    inlined,
    int8s,
    int16s,
    int64s,
    larger,
    lowest_bit,
    no_ints,
    plane_size,
    prefetch,
    reached,
    store,
    uint16s,
    uint64s,
    upper_bounds,
    without,
)
from sanderling.kernels.topk_heap import consider, ordered

LINE = 64  # bytes that the memory brings at once
AHEAD = 12  # rows asked of the memory before their turn
NOTHING = np.float32(-np.inf)


@inlined
def _below(x: Any) -> Any:
    """Return a float32 that is at most x, and near it."""
    near = np.float32(x)
    return near if np.float64(near) <= x else np.float32(x - abs(x) * 1.2e-7 - 1e-44)


@inlined
def _kth(values: Any, size: Any, k: Any) -> Any:
    """Return the k-th largest of the values, and put them in another order (Hoare's quickselect)."""
    low, high, at = 0, size - 1, k - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if at <= j:
            high = j
        elif at >= i:
            low = i
        else:
            break
    return values[at]


@inlined
def _usual_slack(table: Any, block: Any, limits: Any) -> Any:
    """Return how far the bounds of a block's rows lie above their estimates, on average."""
    plane_bytes = plane_size(table[2], table[8])
    tail = table[0] + block * (plane_bytes + TAIL) + plane_bytes
    steps, ends, sum_ = uint16s(tail), float32s(tail + 4 * ROWS), np.float32(0)
    for lane in range(ROWS):
        sum_ += float_of(np.uint32(steps[lane]) << np.uint32(16))
    return sum_ * np.float32(1 / ROWS) * (limits[0] * ends[0] + limits[1] * ends[1] + limits[2])


@called
def _first_line(bounds_at: Any, vectors: Any, maxima_at: Any, k: Any) -> Any:
    """Return a bound that at least k of the bounds reach, and few more."""
    groups = 4
    while groups * LANES < 4 * k:
        groups *= 2
    groups = min(groups, vectors)
    if groups * LANES < k:
        return NOTHING
    for group in range(groups):
        most = floats_at(bounds_at + 64 * group)
        for at in range(group + groups, vectors, groups):
            most = larger(most, floats_at(bounds_at + 64 * at))
        store(maxima_at + 64 * group, most)
    return _kth(float32s(maxima_at), groups * LANES, k)


@called
def _hits(bounds_at: Any, vectors: Any, line: Any, hits: Any) -> Any:
    """Write the places of the bounds that reach a line; return how many there are."""
    lines, count = all_floats(line), 0
    for at in range(0, vectors, 4):
        start = bounds_at + 64 * at
        mask = reached(floats_at(start), lines) | reached(floats_at(start + 64), lines) << 16
        mask |= (
            reached(floats_at(start + 128), lines) << 32
            | reached(floats_at(start + 192), lines) << 48
        )
        while mask != 0:
            hits[count] = at * LANES + lowest_bit(mask)
            count += 1
            mask &= mask - 1
    return count


@inlined
def _ask_for(table: Any, row: Any) -> None:
    """Let the memory bring a row before its turn."""
    start = table[3] + row * table[5]
    for at in range(0, table[5], LINE):
        prefetch(start + at)


@called
def _settle(
    k: Any,
    table: Any,
    step: Any,
    codes_at: Any,
    scores: Any,
    found: Any,
    late: Any,
    bounds: Any,
    state: Any,
) -> None:
    """Score those of the waiting rows whose bound still reaches."""
    left = 0
    for at in range(state[1]):
        if bounds[at] >= _below(scores[0]):
            late[left], bounds[left] = late[at], bounds[at]
            left += 1
    for at in range(left):
        _ask_for(table, late[min(at + AHEAD, left - 1)])
        if bounds[at] >= _below(scores[0]):
            consider(late[at], k, table, step, codes_at, scores, found, state)
    state[1] = 0


@inlined
def _finish(
    sums0: Any,
    sums1: Any,
    sums2: Any,
    sums3: Any,
    tail: Any,
    mask: Any,
    steps: Any,
    limits: Any,
    bounds_at: Any,
) -> None:
    """Write the bounds of a block's rows from their sums; excluded ones get minus infinity."""
    ends = float32s(tail + 4 * ROWS)
    offsets = all_floats(limits[4] + limits[0] * ends[0] + limits[1] * ends[1] + limits[2])
    bounds0 = upper_bounds(sums0, steps, offsets, tail, tail + 128)
    bounds1 = upper_bounds(sums1, steps, offsets, tail + 32, tail + 160)
    bounds2 = upper_bounds(sums2, steps, offsets, tail + 64, tail + 192)
    bounds3 = upper_bounds(sums3, steps, offsets, tail + 96, tail + 224)
    if mask != 0:
        bounds0, bounds1 = without(bounds0, mask), without(bounds1, mask >> np.uint64(16))
        bounds2, bounds3 = (
            without(bounds2, mask >> np.uint64(32)),
            without(bounds3, mask >> np.uint64(48)),
        )
    store(bounds_at, bounds0)
    store(bounds_at + 64, bounds1)
    store(bounds_at + 128, bounds2)
    store(bounds_at + 192, bounds3)


@called
def _bound_halves(
    table: Any, first: Any, last: Any, coarse_at: Any, barred: Any, limits: Any, bounds_at: Any
) -> None:
    """Write the upper bounds of the scores of some blocks' rows, from planes of four bits."""
    groups, steps = table[2], all_floats(limits[3])
    size = plane_size(groups, HALF) + TAIL
    for block in range(first, last):
        start = table[0] + block * size
        sums0, sums1, sums2, sums3 = no_ints(), no_ints(), no_ints(), no_ints()
        for batch in range(0, groups, MOST_HALVES):
            part0, part1, part2, part3 = no_sums(), no_sums(), no_sums(), no_sums()
            for group in range(batch, min(batch + MOST_HALVES, groups)):
                part, query = start + group * ROWS * 4, coarse_at + group * GROUP
                part0 = half_dot(part0, part, query)
                part1 = half_dot(part1, part + 64, query)
                part2 = half_dot(part2, part + 128, query)
                part3 = half_dot(part3, part + 192, query)
            sums0, sums1 = added(sums0, folded(part0)), added(sums1, folded(part1))
            sums2, sums3 = added(sums2, folded(part2)), added(sums3, folded(part3))
        tail, at = start + size - TAIL, bounds_at + (block - first) * 4 * ROWS
        _finish(sums0, sums1, sums2, sums3, tail, barred[block], steps, limits, at)


@called
def _bound_wholes(
    table: Any, first: Any, last: Any, coarse_at: Any, barred: Any, limits: Any, bounds_at: Any
) -> None:
    """Write the upper bounds of the scores of some blocks' rows, from planes of seven bits."""
    groups, steps = table[2], all_floats(limits[3])
    size = plane_size(groups, WHOLE) + TAIL
    for block in range(first, last):
        start = table[0] + block * size
        sums0, sums1, sums2, sums3 = no_ints(), no_ints(), no_ints(), no_ints()
        for group in range(2 * groups):
            part, query = start + group * ROWS * 4, coarse_at + group * 4
            sums0 = whole_dot(sums0, part, query)
            sums1 = whole_dot(sums1, part + 64, query)
            sums2 = whole_dot(sums2, part + 128, query)
            sums3 = whole_dot(sums3, part + 192, query)
        tail, at = start + size - TAIL, bounds_at + (block - first) * 4 * ROWS
        _finish(sums0, sums1, sums2, sums3, tail, barred[block], steps, limits, at)


@inlined
def _bar(
    hidden_at: Any, excluded: Any, count: Any, blocks: Any, n: Any, barred: Any, state: Any
) -> None:
    """Mark the rows that may not be found: the hidden ones, where there are any, and the excluded ones."""
    hidden = uint64s(hidden_at)
    for block in range(blocks):
        barred[block] = hidden[block] if hidden_at != 0 else np.uint64(0)
    for at in range(count):
        row = excluded[at]
        bit = np.uint64(1) << np.uint64(row % ROWS)
        if 0 <= row < n and barred[row // ROWS] & bit == 0:
            barred[row // ROWS] |= bit
            state[2] -= 1


@exported
def scan(
    table_at: Any, query_at: Any, excluded_at: Any, excluded_count: Any, k: Any, scratch_at: Any
) -> Any:
    """Find the k best rows of a table that are not excluded; return how many there are."""
    table, scratch = int64s(table_at), int64s(scratch_at)
    blocks, n, d, bits = table[1], table[4], table[5], table[8]
    found, scores = int64s(scratch[0]), float64s(scratch[1])
    late, late_bounds = int64s(scratch[2]), float32s(scratch[3])
    codes_at, coarse_at, bounds_at = scratch[4], scratch[5], scratch[7]
    barred, bounds, hits = uint64s(scratch[6]), float32s(bounds_at), int64s(scratch[9])
    state, limits, excluded = int64s(scratch[8]), float32s(scratch[8] + 32), int64s(excluded_at)
    state[0], state[1], state[2] = 0, 0, n - state[3]
    _bar(scratch[10], excluded, excluded_count, blocks, n, barred, state)
    zero = 8.0 if bits == HALF else 64.0
    step = quantize(float32s(query_at), d, zero, int16s(codes_at), int8s(coarse_at), limits)
    for first in range(0, blocks, CHUNK // ROWS):
        last, start = min(first + CHUNK // ROWS, blocks), first * ROWS
        vectors = (last - first) * ROWS // LANES
        if bits == HALF:
            _bound_halves(table, first, last, coarse_at, barred, limits, bounds_at)
        else:
            _bound_wholes(table, first, last, coarse_at, barred, limits, bounds_at)
        if state[0] < k:
            line = _first_line(bounds_at, vectors, scratch[9], k - state[0])
            count = _hits(bounds_at, vectors, line, hits)
            for at in range(count):
                _ask_for(table, start + hits[min(at + AHEAD, count - 1)])
                if bounds[hits[at]] > NOTHING:
                    consider(start + hits[at], k, table, step, codes_at, scores, found, state)
                bounds[hits[at]] = NOTHING
        if state[0] < k:
            continue
        now, worst, slack = 0, np.float32(scores[0]), _usual_slack(table, first, limits)
        for at in range(_hits(bounds_at, vectors, _below(scores[0]), hits)):
            row, limit = start + hits[at], bounds[hits[at]]
            if limit - slack >= worst:
                _ask_for(table, row)
                hits[now] = row
                now += 1
            else:
                late[state[1]], late_bounds[state[1]] = row, limit
                state[1] += 1
                if state[1] == WAITING:
                    _settle(k, table, step, codes_at, scores, found, late, late_bounds, state)
        for at in range(now):
            consider(hits[at], k, table, step, codes_at, scores, found, state)
    if state[1] > 0:
        _settle(k, table, step, codes_at, scores, found, late, late_bounds, state)
    ordered(scores, found, state[0])
    return state[0]
