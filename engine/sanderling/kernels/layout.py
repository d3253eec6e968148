"""The blocks in which rows are scanned, and the memory that a scan works in.

A block holds 64 rows, so that one instruction advances many rows and no sum across lanes is needed:

    d/8 x 64 x 4 bytes    plane: four bits for each dimension, four bytes a row for each eight dimensions
    64 x bfloat16         step a_i of each row's plane: v_i = a_i (c_i - 8) + residual_i
    64 x bfloat16         bias of each row, rounded up
    2 x float32           the largest |residual_i| / a_i and |c_i - 8| of the block; 56 bytes are free

Vectors v_i are the int8 rows times their scales. Blocks are derived from them where they are scanned and never leave
the process: bundles hold plain rows. Refuses to know how rows are scored.
"""

from __future__ import annotations

ROWS, GROUP, LANES, TAIL = 64, 8, 16, 320
CHUNK, WAITING = 8192, 4096  # rows bounded at a time; rows that may wait for the end
LARGEST = 8388607  # of the query's codes: 23 bits and a sign
LARGEST_VALUE = 1e12  # of a query, a scale or a bias, so that bounds in float32 are finite
MOST_DIMENSIONS = 8192  # so that sums of products fit into 32 bits

SDOT = "sanderling_sdot"  # the function that stands for ARM's dot product


def block_bytes(d: int) -> int:
    """Return the size of a block of rows of d dimensions."""
    return -(-d // GROUP) * ROWS * 4 + TAIL
