"""int8 rows -> blocks of planes in four or seven bits (`layout`). Bare: addresses in. Refuses to know queries."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from sanderling.kernels.layout import GROUP, HALF, ROWS, TAIL
from sanderling.kernels.simd import (
    bits_of,
    exported,
    float32s,
    float_of,
    inlined,
    int8s,
    int64s,
    plane_size,
    reordered,
    uint8s,
    uint16s,
)

_NORMAL_STEP = 0.335  # of a normal number's deviation: the step at which four bits lose least
_LOSS = (
    0.32  # the |residual| / (a sqrt(d)) that a row may have; normal numbers have it at that step
)


@inlined
def _bfloat(value: Any) -> Any:
    return float_of(
        np.uint32((bits_of(np.float32(value)) + np.uint32(0x8000)) & np.uint32(0xFFFF0000))
    )


@inlined
def _bfloat_up(value: Any) -> Any:
    bits = bits_of(value)
    rest = np.uint32(0xFFFF) if bits < np.uint32(0x80000000) else np.uint32(0)
    return np.uint16((bits + rest) >> np.uint32(16))


@reordered
def _energy(row: Any, d: Any) -> Any:
    total = np.float32(0)
    for j in range(d):
        total += np.float32(row[j]) * np.float32(row[j])
    return total


@inlined
def _peak(row: Any, d: Any) -> Any:
    largest = np.int32(0)
    for j in range(d):
        largest = max(largest, abs(np.int32(row[j])))
    return np.float32(largest)


@inlined
def _code(value: Any, inverse: Any, zero: Any) -> Any:
    near = np.float32(value) * inverse + (zero + np.float32(0.5))
    return np.int32(min(max(near, np.float32(0.0)), zero + zero - np.float32(0.5)))


@reordered
def _lost(row: Any, d: Any, step: Any, inverse: Any, zero: Any) -> Any:
    total = np.float32(0)
    for j in range(d):
        rest = np.float32(row[j]) - step * (np.float32(_code(row[j], inverse, zero)) - zero)
        total += rest * rest
    return total


@reordered
def _spread(row: Any, d: Any, inverse: Any, zero: Any) -> Any:
    total = np.float32(0)
    for j in range(d):
        code = np.float32(_code(row[j], inverse, zero)) - zero
        total += code * code
    return total


@inlined
def _best_step(row: Any, d: Any, scale: Any, zero: Any) -> Any:
    """Return the smallest step, a bfloat16 in units of the vectors, at which the row loses no more than it may."""
    last = _peak(row, d) / (zero - np.float32(1))
    step = min(np.float32(_NORMAL_STEP * sqrt(_energy(row, d) / d)), last)
    while True:
        whole = _bfloat(step * scale)
        own = whole / scale
        if (
            step >= last
            or _lost(row, d, own, np.float32(1) / own, zero)
            <= np.float32(_LOSS * _LOSS) * d * own * own
        ):
            return whole
        step = min(step * np.float32(1.08), last)


@inlined
def _pack_row(
    row: Any, d: Any, inverse: Any, zero: Any, plane: Any, groups: Any, bits: Any
) -> None:
    """Write the codes of a row, whose d dimensions are filled up with zeros to `groups` of eight."""
    blank = np.int32(zero)
    for group in range(groups):
        for j in range(4):
            first, second = group * GROUP + j, group * GROUP + 4 + j
            low = _code(row[first], inverse, zero) if first < d else blank
            high = _code(row[second], inverse, zero) if second < d else blank
            if bits == HALF:
                plane[group * ROWS * 4 + j] = np.uint8(low | high << 4)
            else:
                plane[2 * group * ROWS * 4 + j] = np.uint8(low)
                plane[(2 * group + 1) * ROWS * 4 + j] = np.uint8(high)


@exported
def pack(table_at: Any, unused: Any, unused2: Any, unused3: Any, unused4: Any, unused5: Any) -> Any:
    """Write the blocks of a table's rows; return their number."""
    table = int64s(table_at)
    blocks, groups, n, d, bits = table[1], table[2], table[4], table[5], table[8]
    scale, bias = float32s(table[6]), float32s(table[7])
    plane_bytes = plane_size(groups, bits)
    zero = np.float32(8) if bits == HALF else np.float32(64)
    for block in range(blocks):
        start = table[0] + block * (plane_bytes + TAIL)
        tail = start + plane_bytes
        steps, biases, limits = uint16s(tail), uint16s(tail + 2 * ROWS), float32s(tail + 4 * ROWS)
        worst, widest = np.float32(0), np.float32(0)
        for lane in range(ROWS):
            at, plane = block * ROWS + lane, uint8s(start + 4 * lane)
            row = int8s(table[3] + min(at, n - 1) * d)
            steps[lane], biases[lane] = np.uint16(0), np.uint16(0xFF80)
            if at < n:
                biases[lane] = _bfloat_up(bias[at])
            if at < n and _peak(row, d) > 0:
                whole = _best_step(row, d, scale[at], zero)
                own = whole / scale[at]
                inverse = np.float32(1) / own
                _pack_row(row, d, inverse, zero, plane, groups, bits)
                steps[lane] = np.uint16(bits_of(whole) >> np.uint32(16))
                worst = max(worst, np.float32(sqrt(_lost(row, d, own, inverse, zero)) / own))
                widest = max(widest, np.float32(sqrt(_spread(row, d, inverse, zero))))
            else:
                _pack_row(row, 0, np.float32(0), zero, plane, groups, bits)
        limits[0] = worst * np.float32(1.0001) + np.float32(1e-5 * sqrt(d))
        limits[1] = widest * np.float32(1.0001)
    return blocks
