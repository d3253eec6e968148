"""Upper bounds of the scores of a block's rows, from its planes (`layout`).

With v_i the vector of row i, f_i the step of its plane, c_i its codes, o the zero point and ρ_i the
residual; q the query, y its int8 codes, g their step and |q - g y| what they leave out, Cauchy and
Schwarz bound each score:

    q . v_i + b_i  <=  f_i (g y . (c_i - o) + |q| max |ρ| / f + |q - g y| max |c - o|) + b_i

where the maxima are over the block. `_write_bounds` takes nine plain numbers: it is inlined, so
that these stay in registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sanderling.kernels.dot_products import MAX_DOT4, dot4, dot7, fold_sums, zero_sums
from sanderling.kernels.layout import (
    BLOCK_ROWS,
    EXTREME_CODE,
    EXTREME_RESIDUAL,
    FOUR_BITS,
    GROUP_DIMS,
    LIMIT_NORM,
    LIMIT_OFFSET,
    LIMIT_REST,
    LIMIT_ROUNDING,
    LIMIT_STEP,
    SCRATCH_BOUNDS,
    SCRATCH_COARSE,
    SCRATCH_EXCLUDED,
    SCRATCH_STATE,
    SEVEN_BITS,
    STATE_LIMITS,
    TABLE_BITS,
    TABLE_BLOCKS,
    TABLE_GROUPS,
    TAIL_BIASES,
    TAIL_BYTES,
    TAIL_EXTREMES,
)
from sanderling.kernels.simd import (
    add,
    broadcast,
    called,
    float32s,
    float_of,
    inlined,
    masked_out,
    plane_size,
    store_floats,
    uint16s,
    uint64s,
    upper_bounds,
    zero_ints,
)

VECTOR_BYTES = 64  # of sixteen float32


@inlined
def mean_slack(table: Any, block: Any, limits: Any) -> Any:
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


@inlined
def offsets_of(tail: Any, limits: Any) -> Any:
    """Return what to add to the scaled sums of a block's rows, so that they become upper bounds."""
    extremes = float32s(tail + TAIL_EXTREMES)
    return broadcast(
        limits[LIMIT_OFFSET]
        + limits[LIMIT_NORM] * extremes[EXTREME_RESIDUAL]
        + limits[LIMIT_REST] * extremes[EXTREME_CODE]
        + limits[LIMIT_ROUNDING]
    )


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
    offsets = offsets_of(tail, limits)
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
def bound_four_bits(table: Any, first: Any, last: Any, scratch: Any) -> None:
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
def bound_seven_bits(table: Any, first: Any, last: Any, scratch: Any) -> None:
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
