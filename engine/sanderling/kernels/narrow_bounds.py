"""Upper bounds of the scores of a block's rows, sixteen rows at a time.

What `block_bounds` does, for machines with few and short vector registers: WebAssembly's. They
multiply int16, so the query's int8 codes are first made into words for all rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sanderling.kernels.block_bounds import VECTOR_BYTES, offsets_of
from sanderling.kernels.dot_products import dot4, dot7, fold_sums, zero_sums
from sanderling.kernels.layout import (
    FOUR_BITS,
    GROUP_DIMS,
    LIMIT_STEP,
    SCRATCH_BOUNDS,
    SCRATCH_COARSE,
    SCRATCH_EXCLUDED,
    SCRATCH_STATE,
    SEVEN_BITS,
    STATE_LIMITS,
    TABLE_BLOCKS,
    TABLE_GROUPS,
    TAIL_BIASES,
    TAIL_BYTES,
)
from sanderling.kernels.simd import (
    broadcast,
    called,
    float32s,
    inlined,
    int8s,
    int16s,
    masked_out,
    plane_size,
    store_floats,
    uint64s,
    upper_bounds,
    zero_ints,
)

QUARTERS = 4  # of a block, of sixteen rows each
QUARTER_BYTES = 64  # of the codes of sixteen rows in a plane
WORD_BYTES = 2


@inlined
def _write_words7(coarse_address: Any, groups: Any) -> Any:
    """Write the query's words for `dot7` behind its codes; return their address.

    Of four dimensions, the codes y of the even ones, then z - 256 y with the odd ones' codes z.
    """
    codes = int8s(coarse_address)
    address = coarse_address + groups * GROUP_DIMS
    words = int16s(address)
    for start in range(0, groups * GROUP_DIMS, 4):
        for i in range(2):
            even = np.int16(codes[start + 2 * i])
            odd = np.int16(codes[start + 2 * i + 1])
            words[start + i] = even
            words[start + 2 + i] = np.int16(odd - 256 * even)
    return address


@inlined
def _write_words4(coarse_address: Any, groups: Any) -> Any:
    """Write the query's words for `dot4` behind its codes; return their address.

    Of eight dimensions, the codes z of the high halves, even ones first, then likewise 16 y - z
    with the codes y of the low halves.
    """
    codes = int8s(coarse_address)
    address = coarse_address + groups * GROUP_DIMS
    words = int16s(address)
    for start in range(0, groups * GROUP_DIMS, GROUP_DIMS):
        for i in range(4):
            dimension = start + (i % 2) * 2 + i // 2  # 0, 2, 1, 3
            low = np.int16(codes[dimension])
            high = np.int16(codes[dimension + 4])
            words[start + i] = high
            words[start + 4 + i] = np.int16(16 * low - high)
    return address


@inlined
def _write_quarter(
    sums: Any, tail: Any, excluded: Any, steps: Any, offsets: Any, bounds_address: Any
) -> None:
    """Write the bounds of sixteen rows from their sums; excluded ones get minus infinity."""
    # Sixteen steps or biases in bfloat16 are 32 bytes.
    bounds = upper_bounds(sums, steps, offsets, tail, tail + TAIL_BIASES)
    if excluded != 0:
        bounds = masked_out(bounds, excluded)
    store_floats(bounds_address, bounds)


@called
def bound_four_bits(table: Any, first: Any, last: Any, scratch: Any) -> None:
    """Write the upper bounds of the scores of some blocks' rows, from planes of four bits."""
    excluded = uint64s(scratch[SCRATCH_EXCLUDED])
    limits = float32s(scratch[SCRATCH_STATE] + 8 * STATE_LIMITS)
    groups = table[TABLE_GROUPS]
    words = _write_words4(scratch[SCRATCH_COARSE], groups)
    steps = broadcast(limits[LIMIT_STEP])
    size = plane_size(groups, FOUR_BITS) + TAIL_BYTES
    out = scratch[SCRATCH_BOUNDS]
    for block in range(first, last):
        plane = table[TABLE_BLOCKS] + block * size
        tail = plane + size - TAIL_BYTES
        offsets = offsets_of(tail, limits)
        for quarter in range(QUARTERS):
            sums = zero_sums()
            codes = plane + quarter * QUARTER_BYTES
            for group in range(groups):
                sums = dot4(
                    sums,
                    codes + group * (QUARTERS * QUARTER_BYTES),
                    words + group * (GROUP_DIMS * WORD_BYTES),
                )
            hidden = excluded[block] >> np.uint64(16 * quarter)
            _write_quarter(fold_sums(sums), tail + 32 * quarter, hidden, steps, offsets, out)
            out += VECTOR_BYTES


@called
def bound_seven_bits(table: Any, first: Any, last: Any, scratch: Any) -> None:
    """Write the upper bounds of the scores of some blocks' rows, from planes of seven bits."""
    excluded = uint64s(scratch[SCRATCH_EXCLUDED])
    limits = float32s(scratch[SCRATCH_STATE] + 8 * STATE_LIMITS)
    groups = table[TABLE_GROUPS]
    words = _write_words7(scratch[SCRATCH_COARSE], groups)
    steps = broadcast(limits[LIMIT_STEP])
    size = plane_size(groups, SEVEN_BITS) + TAIL_BYTES
    out = scratch[SCRATCH_BOUNDS]
    for block in range(first, last):
        plane = table[TABLE_BLOCKS] + block * size
        tail = plane + size - TAIL_BYTES
        offsets = offsets_of(tail, limits)
        for quarter in range(QUARTERS):
            sums = zero_ints()
            codes = plane + quarter * QUARTER_BYTES
            for half_group in range(2 * groups):
                sums = dot7(
                    sums,
                    codes + half_group * (QUARTERS * QUARTER_BYTES),
                    words + half_group * (GROUP_DIMS // 2 * WORD_BYTES),
                )
            hidden = excluded[block] >> np.uint64(16 * quarter)
            _write_quarter(sums, tail + 32 * quarter, hidden, steps, offsets, out)
            out += VECTOR_BYTES
