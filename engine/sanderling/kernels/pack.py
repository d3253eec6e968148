"""int8 rows -> blocks of four-bit planes. Bare: addresses in. Refuses to know queries."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from sanderling.kernels.lanes import bits_of, exported, float32s, float_of, inlined, int8s, reordered, uint8s, uint16s
from sanderling.kernels.layout import GROUP, ROWS, TAIL

_NORMAL_STEP = 0.335  # of a normal number's deviation: the step at which four bits lose least
_LOSS = 0.32  # the |residual| / (a sqrt(d)) that a row may have; normal numbers have it at that step


@inlined
def _bfloat(value: Any) -> Any:
    return float_of(np.uint32((bits_of(np.float32(value)) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)))


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
def _code(value: Any, inverse: Any) -> Any:
    near = np.float32(value) * inverse + np.float32(8.5)
    return np.int32(min(max(near, np.float32(0.0)), np.float32(15.5)))


@reordered
def _lost(row: Any, d: Any, step: Any, inverse: Any) -> Any:
    total = np.float32(0)
    for j in range(d):
        rest = np.float32(row[j]) - step * np.float32(_code(row[j], inverse) - 8)
        total += rest * rest
    return total


@reordered
def _spread(row: Any, d: Any, inverse: Any) -> Any:
    total = np.float32(0)
    for j in range(d):
        code = np.float32(_code(row[j], inverse) - 8)
        total += code * code
    return total


@inlined
def _best_step(row: Any, d: Any, scale: Any) -> Any:
    """Return the smallest step, a bfloat16 in units of the vectors, at which the row loses no more than it may."""
    last = _peak(row, d) / np.float32(7)
    step = min(np.float32(_NORMAL_STEP * sqrt(_energy(row, d) / d)), last)
    while True:
        whole = _bfloat(step * scale)
        own = whole / scale
        if step >= last or _lost(row, d, own, np.float32(1) / own) <= np.float32(_LOSS * _LOSS) * d * own * own:
            return whole
        step = min(step * np.float32(1.08), last)


@inlined
def _pack_row(row: Any, d: Any, inverse: Any, plane: Any) -> None:
    for group in range((d + GROUP - 1) // GROUP):
        for j in range(4):
            low, high = group * GROUP + j, group * GROUP + 4 + j
            code = _code(row[low], inverse) if low < d else np.int32(8)
            above = _code(row[high], inverse) if high < d else np.int32(8)
            plane[group * ROWS * 4 + j] = np.uint8(code | above << 4)


@exported
def pack(rows_at: Any, scale_at: Any, bias_at: Any, n: Any, d: Any, blocks_at: Any) -> Any:
    """Write the blocks of int8 rows [n, d] with float32 scales and biases [n]; return their number."""
    scale, bias = float32s(scale_at), float32s(bias_at)
    plane_bytes, blocks = (d + GROUP - 1) // GROUP * ROWS * 4, (n + ROWS - 1) // ROWS
    for block in range(blocks):
        start = blocks_at + block * (plane_bytes + TAIL)
        tail = start + plane_bytes
        steps, biases, limits = uint16s(tail), uint16s(tail + 2 * ROWS), float32s(tail + 4 * ROWS)
        worst, widest = np.float32(0), np.float32(0)
        for lane in range(ROWS):
            at, plane = block * ROWS + lane, uint8s(start + 4 * lane)
            row = int8s(rows_at + min(at, n - 1) * d)
            steps[lane], biases[lane] = np.uint16(0), np.uint16(0xFF80)
            if at < n:
                biases[lane] = _bfloat_up(bias[at])
            if at < n and _peak(row, d) > 0:
                whole = _best_step(row, d, scale[at])
                own = whole / scale[at]
                inverse = np.float32(1) / own
                _pack_row(row, d, inverse, plane)
                steps[lane] = np.uint16(bits_of(whole) >> np.uint32(16))
                worst = max(worst, np.float32(sqrt(_lost(row, d, own, inverse)) / own))
                widest = max(widest, np.float32(sqrt(_spread(row, d, inverse))))
            else:
                _pack_row(row, 0, np.float32(0), plane)
        limits[0] = worst * np.float32(1.0001) + np.float32(1e-5 * sqrt(d))
        limits[1] = widest * np.float32(1.0001)
    return blocks
