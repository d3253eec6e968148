"""The memory that kernels share with their callers: packed blocks, and arrays of addresses.

A block holds 64 rows, so that one instruction advances many rows and no sum across lanes is needed:

    plane                 a code c_i for each dimension of each row
    64 x bfloat16         step f_i of each row's plane: v_i = f_i (c_i - o) + ρ_i
    64 x bfloat16         bias of each row, rounded up
    2 x float32           the largest |ρ_i| / f_i and |c_i - o|; 56 bytes are free

The plane is d/4 x 64 x 4 bytes of seven bits each (o = 64) where tables are small: a little more to
read, and few rows need a second look. In large ones it is d/8 x 64 x 4 bytes, halves of four bits
each (o = 8): of each eight dimensions the first four are the low halves.

The symbols are those of docs/MATH.md: o is the zero point, ρ_i the residual of row i, and the
vectors v_i are the int8 rows times their scales. Blocks are derived from them on the machine that
scans them and never leave the process: bundles hold plain rows.

Kernels take addresses only. What they read and write is found through two int64 arrays, `table` and
`scratch`, and a small array `state`, indexed by the constants below. numba folds these constants,
so a name costs nothing. `tests/engine/kernels_harness.c` fills the same arrays by hand.
"""

from __future__ import annotations

# The shape of a block
BLOCK_ROWS = 64
GROUP_DIMS = 8  # dimensions are packed in groups of eight, filled up with zeros
LANES = 16  # of 32 bits, in one vector of the processor
TAIL_BYTES = 320  # behind the plane: steps, biases and extremes, filled up to whole cache lines
TAIL_BIASES = 2 * BLOCK_ROWS  # bytes from the tail's start; the steps stand at 0
TAIL_EXTREMES = 4 * BLOCK_ROWS  # bytes from the tail's start
EXTREME_RESIDUAL = 0  # the block's largest |ρ_i| / f_i
EXTREME_CODE = 1  # the block's largest |c_i - o|

# Bits of a code
FOUR_BITS = 4
SEVEN_BITS = 7
# Up to this size seven bits are faster, as measured (docs/LOG.md).
SMALL_TABLE_BYTES = 4_000_000

# Limits
CHUNK_ROWS = 8192  # rows that are bounded at a time
MAX_DEFERRED = 4096  # rows whose exact score may be left until the threshold is known better
MAX_CODE = 8388607  # of the query's codes: 23 bits and a sign
MAX_VALUE = 1e12  # of a query, a scale or a bias, so that bounds in float32 do not overflow
MIN_VALUE = 1e-12  # of a query's largest number and of a scale, so that they do not vanish
MAX_DIMENSIONS = 8191  # so that sums of products fit into 32 bits

# `table`: the rows, and the blocks made of them
TABLE_BLOCKS = 0  # address of the blocks, on a cache line
TABLE_BLOCK_COUNT = 1
TABLE_GROUPS = 2  # groups of eight dimensions in a row
TABLE_ROWS = 3  # address of int8 [n, d]
TABLE_N = 4
TABLE_D = 5
TABLE_SCALE = 6  # address of float32 [n]
TABLE_BIAS = 7  # address of float32 [n]
TABLE_BITS = 8  # FOUR_BITS or SEVEN_BITS
TABLE_SIZE = 9

# `scratch`: the addresses of the memory in which one thread scans
SCRATCH_BEST_ROWS = 0  # int64 [k]: the result
SCRATCH_BEST_SCORES = 1  # float64 [k]: the result
SCRATCH_DEFERRED_ROWS = 2  # int64 [MAX_DEFERRED]
SCRATCH_DEFERRED_BOUNDS = 3  # float32 [MAX_DEFERRED]
SCRATCH_CODES = 4  # int16 [2, d rounded up to LANES]: the query's high and low twelve bits
# int8 [d rounded up to GROUP_DIMS]: the query in int8; in WebAssembly int16 as many follow
SCRATCH_COARSE = 5
SCRATCH_EXCLUDED = 6  # uint64 [blocks]: a bit for each row that may not be returned
SCRATCH_BOUNDS = 7  # float32 [CHUNK_ROWS]
SCRATCH_STATE = 8  # int64 [STATE_SIZE]
SCRATCH_HITS = 9  # int64 [CHUNK_ROWS]; it also holds the maxima of the first threshold
SCRATCH_MASK = 10  # uint64 [blocks] of a `RowMask`, or 0 where there is none
SCRATCH_SIZE = 11

# `state`: counters of one scan, and from STATE_LIMITS on float32 numbers of its query
STATE_BEST = 0  # rows in the heap
STATE_DEFERRED = 1  # rows that wait for their exact score
STATE_ELIGIBLE = 2  # rows that may be returned
STATE_MASKED = 3  # rows that the mask hides; set by the caller
STATE_LIMITS = 4
STATE_SIZE = 8

# The float32 numbers that bound the scores of one query
LIMIT_NORM = 0  # |q|
LIMIT_REST = 1  # |q - g y|, what the query's int8 codes y leave out
LIMIT_ROUNDING = 2  # a margin for the rounding of float32
LIMIT_STEP = 3  # g, the step of y
LIMIT_OFFSET = 4  # -o g sum(y): codes are stored without sign
LIMIT_COUNT = 5

# `model`: the user model. Weights have a row for each input; rows are filled up with zeros to LANES
MODEL_CHANNELS = 0  # c
MODEL_ITEMS = 1  # d
MODEL_HIDDEN = 2  # m
MODEL_TEXT = 3  # t
MODEL_WIDTH = 4  # the largest of c, m and d, rounded up to LANES
MODEL_INPUT = 5  # address of float32 [d, c]
MODEL_KINDS = 6  # address of float32 [kinds, c], not filled up
MODEL_DECAY = 7  # address of float32 [c], not filled up
MODEL_GAIN = 8  # address of float32 [c], not filled up
MODEL_W1 = 9  # address of float32 [c, m], the gain of the normalization in it
MODEL_B1 = 10  # address of float32 [m], not filled up; the shift of the normalization in it
MODEL_W2 = 11  # address of float32 [m, d]
MODEL_B2 = 12  # address of float32 [d], not filled up
MODEL_CONTEXT = 13  # address of float32 [t, d]
MODEL_SIZE = 14
EPSILON = 1e-5  # of the layer normalization


def ceil_div(a: int, b: int) -> int:
    """Return a / b, rounded up to an integer; b > 0."""
    return -(-a // b)


def plane_bytes(d: int, bits: int) -> int:
    """Return the bytes of the plane of a block of rows of d dimensions, in 4 or 7 bits."""
    codes = ceil_div(d, GROUP_DIMS) * GROUP_DIMS * BLOCK_ROWS
    # A code of seven bits takes a byte; two of four bits share one.
    return codes // 2 if bits == FOUR_BITS else codes


def bits_for(n: int, d: int) -> int:
    """Return the bits of the planes of n rows of d dimensions."""
    return SEVEN_BITS if n * d <= SMALL_TABLE_BYTES else FOUR_BITS
