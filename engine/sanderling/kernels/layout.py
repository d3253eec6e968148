"""The blocks in which rows are scanned, and the memory that a scan works in.

A block holds 64 rows, so that one instruction advances many rows and no sum across lanes is needed:

    plane                 a code c_i for each dimension of each row
    64 x bfloat16         step a_i of each row's plane: v_i = a_i (c_i - z) + residual_i
    64 x bfloat16         bias of each row, rounded up
    2 x float32           the largest |residual_i| / a_i and |c_i - z| of the block; 56 bytes are free

The plane is d/4 x 64 x 4 bytes of seven bits each (z = 64) where tables are small: a little more to read, and few rows
are to be looked at again. In large ones it is d/8 x 64 x 4 bytes, halves of four bits each (z = 8): of each eight
dimensions the first four are the low halves.

Vectors v_i are the int8 rows times their scales. Blocks are derived from them where they are scanned and never leave
the process: bundles hold plain rows. Refuses to know how rows are scored.
"""

from __future__ import annotations

ROWS, GROUP, LANES, TAIL = 64, 8, 16, 320
CHUNK, WAITING = 8192, 4096  # rows bounded at a time; rows that may wait for the end
HALF, WHOLE = 4, 7  # bits of a code
SMALL = (
    4_000_000  # bytes of rows up to which seven bits are the faster ones, as measured (docs/LOG.md)
)
LARGEST = 8388607  # of the query's codes: 23 bits and a sign
LARGEST_VALUE = 1e12  # of a query, a scale or a bias, so that bounds in float32 do not overflow
SMALLEST_VALUE = 1e-12  # of a query's largest number and of a scale, so that they do not vanish
MOST_DIMENSIONS = 8191  # so that sums of products fit into 32 bits

SDOT = "sanderling_sdot"  # the function that stands for ARM's dot product


def plane_bytes(d: int, bits: int) -> int:
    """Return the size of the plane of a block of rows of d dimensions, in 4 or 7 bits."""
    return -(-d // GROUP) * ROWS * GROUP // (2 if bits == HALF else 1)


def bits_for(n: int, d: int) -> int:
    """Return the bits of the planes of n rows of d dimensions."""
    return WHOLE if n * d <= SMALL else HALF
