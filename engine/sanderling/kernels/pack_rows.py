"""int8 rows -> blocks of planes in four or seven bits (`layout`)."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np

from sanderling.kernels.layout import (
    BLOCK_ROWS,
    EXTREME_CODE,
    EXTREME_RESIDUAL,
    FOUR_BITS,
    GROUP_DIMS,
    TABLE_BIAS,
    TABLE_BITS,
    TABLE_BLOCK_COUNT,
    TABLE_BLOCKS,
    TABLE_D,
    TABLE_GROUPS,
    TABLE_N,
    TABLE_ROWS,
    TABLE_SCALE,
    TAIL_BIASES,
    TAIL_BYTES,
    TAIL_EXTREMES,
)
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

# The step, in standard deviations, at which four bits lose least of normally distributed numbers.
_NORMAL_STEP = 0.335
# The |residual| / (a sqrt(d)) that a row may have; normally distributed numbers have it at that
# step.
_MAX_LOSS = 0.32
_MINUS_INFINITY = np.uint16(0xFF80)  # in bfloat16


@inlined
def _bfloat(value: Any) -> Any:
    """Return the float32 rounded to the nearest bfloat16."""
    return float_of(
        np.uint32((bits_of(np.float32(value)) + np.uint32(0x8000)) & np.uint32(0xFFFF0000))
    )


@inlined
def _bfloat_up(value: Any) -> Any:
    """Return the bits of the least bfloat16 that is not below a float32."""
    bits = bits_of(value)
    # Cutting bits off makes a negative number larger already; a positive one has to be carried up.
    carry = np.uint32(0xFFFF) if bits < np.uint32(0x80000000) else np.uint32(0)
    return np.uint16((bits + carry) >> np.uint32(16))


@reordered
def _energy(row: Any, d: Any) -> Any:
    """Return the sum of squares of a row."""
    total = np.float32(0)
    for j in range(d):
        total += np.float32(row[j]) * np.float32(row[j])
    return total


@inlined
def _peak(row: Any, d: Any) -> Any:
    """Return the largest magnitude of a row."""
    largest = np.int32(0)
    for j in range(d):
        largest = max(largest, abs(np.int32(row[j])))
    return np.float32(largest)


@inlined
def _code(value: Any, inverse: Any, zero: Any) -> Any:
    """Return the code of a number: rounded in units of the step, moved by `zero`, and clipped."""
    near = np.float32(value) * inverse + (zero + np.float32(0.5))
    return np.int32(min(max(near, np.float32(0.0)), zero + zero - np.float32(0.5)))


@reordered
def _residual_energy(row: Any, d: Any, step: Any, inverse: Any, zero: Any) -> Any:
    """Return the sum of squares of what the codes leave out of a row."""
    total = np.float32(0)
    for j in range(d):
        rest = np.float32(row[j]) - step * (np.float32(_code(row[j], inverse, zero)) - zero)
        total += rest * rest
    return total


@reordered
def _code_energy(row: Any, d: Any, inverse: Any, zero: Any) -> Any:
    """Return the sum of squares of a row's codes, counted from `zero`."""
    total = np.float32(0)
    for j in range(d):
        code = np.float32(_code(row[j], inverse, zero)) - zero
        total += code * code
    return total


@inlined
def _best_step(row: Any, d: Any, scale: Any, zero: Any) -> Any:
    """Return the smallest bfloat16 step, in units of the vectors, whose loss is allowed."""
    last = _peak(row, d) / (zero - np.float32(1))  # at which no code is clipped
    step = min(np.float32(_NORMAL_STEP * sqrt(_energy(row, d) / d)), last)
    while True:
        stored = _bfloat(step * scale)
        row_step = stored / scale
        if step >= last:
            return stored
        loss = _residual_energy(row, d, row_step, np.float32(1) / row_step, zero)
        if loss <= np.float32(_MAX_LOSS * _MAX_LOSS) * d * row_step * row_step:
            return stored
        step = min(step * np.float32(1.08), last)


@inlined
def _pack_row(
    row: Any, d: Any, inverse: Any, zero: Any, plane: Any, groups: Any, bits: Any
) -> None:
    """Write the codes of a row, its d dimensions filled up with zeros to `groups` of eight."""
    blank = np.int32(zero)
    for group in range(groups):
        for j in range(4):
            first = group * GROUP_DIMS + j
            second = first + 4
            low = _code(row[first], inverse, zero) if first < d else blank
            high = _code(row[second], inverse, zero) if second < d else blank
            if bits == FOUR_BITS:
                plane[group * BLOCK_ROWS * 4 + j] = np.uint8(low | high << 4)
            else:
                plane[2 * group * BLOCK_ROWS * 4 + j] = np.uint8(low)
                plane[(2 * group + 1) * BLOCK_ROWS * 4 + j] = np.uint8(high)


@exported
def pack(
    table_address: Any, unused: Any, unused2: Any, unused3: Any, unused4: Any, unused5: Any
) -> Any:
    """Write the blocks of a table's rows; return their number."""
    table = int64s(table_address)
    blocks = table[TABLE_BLOCK_COUNT]
    groups = table[TABLE_GROUPS]
    n = table[TABLE_N]
    d = table[TABLE_D]
    bits = table[TABLE_BITS]
    scale = float32s(table[TABLE_SCALE])
    bias = float32s(table[TABLE_BIAS])
    plane_bytes = plane_size(groups, bits)
    zero = np.float32(8) if bits == FOUR_BITS else np.float32(64)

    for block in range(blocks):
        start = table[TABLE_BLOCKS] + block * (plane_bytes + TAIL_BYTES)
        tail = start + plane_bytes
        steps = uint16s(tail)
        biases = uint16s(tail + TAIL_BIASES)
        extremes = float32s(tail + TAIL_EXTREMES)
        max_residual = np.float32(0)
        max_code = np.float32(0)
        for lane in range(BLOCK_ROWS):
            i = block * BLOCK_ROWS + lane
            plane = uint8s(start + 4 * lane)
            row = int8s(table[TABLE_ROWS] + min(i, n - 1) * d)
            steps[lane] = np.uint16(0)
            # Lanes behind the last row keep this bias, so that their bounds reach no threshold.
            biases[lane] = _MINUS_INFINITY
            if i < n:
                biases[lane] = _bfloat_up(bias[i])
            if i < n and _peak(row, d) > 0:
                stored = _best_step(row, d, scale[i], zero)
                row_step = stored / scale[i]
                inverse = np.float32(1) / row_step
                _pack_row(row, d, inverse, zero, plane, groups, bits)
                steps[lane] = np.uint16(bits_of(stored) >> np.uint32(16))
                residual = sqrt(_residual_energy(row, d, row_step, inverse, zero)) / row_step
                max_residual = max(max_residual, np.float32(residual))
                max_code = max(max_code, np.float32(sqrt(_code_energy(row, d, inverse, zero))))
            else:
                _pack_row(row, 0, np.float32(0), zero, plane, groups, bits)
        # Sums in float32, in any order, lose less than what is added here.
        extremes[EXTREME_RESIDUAL] = max_residual * np.float32(1.0001) + np.float32(1e-5 * sqrt(d))
        extremes[EXTREME_CODE] = max_code * np.float32(1.0001)
    return blocks
