/**
 * The memory that kernels share with their callers, as `sanderling.kernels.layout` describes it.
 *
 * The numbers are those of that file (tests/engine/test_wasm_kernels.py).
 */

export const BLOCK_ROWS = 64;
export const GROUP_DIMS = 8;
export const LANES = 16;
export const TAIL_BYTES = 320;
export const TAIL_BIASES = 128;

export const FOUR_BITS = 4;
export const SEVEN_BITS = 7;
export const SMALL_TABLE_BYTES = 4_000_000;

export const CHUNK_ROWS = 8192;
export const MAX_DEFERRED = 4096;
export const MAX_CODE = 8388607;
export const MAX_VALUE = 1e12;
export const MIN_VALUE = 1e-12;
export const MAX_DIMENSIONS = 8191;

export const TABLE_BLOCKS = 0;
export const TABLE_BLOCK_COUNT = 1;
export const TABLE_GROUPS = 2;
export const TABLE_ROWS = 3;
export const TABLE_N = 4;
export const TABLE_D = 5;
export const TABLE_SCALE = 6;
export const TABLE_BIAS = 7;
export const TABLE_BITS = 8;
export const TABLE_SIZE = 9;

export const SCRATCH_BEST_ROWS = 0;
export const SCRATCH_BEST_SCORES = 1;
export const SCRATCH_DEFERRED_ROWS = 2;
export const SCRATCH_DEFERRED_BOUNDS = 3;
export const SCRATCH_CODES = 4;
export const SCRATCH_COARSE = 5;
export const SCRATCH_EXCLUDED = 6;
export const SCRATCH_BOUNDS = 7;
export const SCRATCH_STATE = 8;
export const SCRATCH_HITS = 9;
export const SCRATCH_MASK = 10;
export const SCRATCH_SIZE = 11;

export const STATE_ELIGIBLE = 2;
export const STATE_MASKED = 3;
export const STATE_SIZE = 8;

export const MODEL_CHANNELS = 0;
export const MODEL_ITEMS = 1;
export const MODEL_HIDDEN = 2;
export const MODEL_TEXT = 3;
export const MODEL_WIDTH = 4;
export const MODEL_INPUT = 5;
export const MODEL_KINDS = 6;
export const MODEL_DECAY = 7;
export const MODEL_GAIN = 8;
export const MODEL_W1 = 9;
export const MODEL_B1 = 10;
export const MODEL_W2 = 11;
export const MODEL_B2 = 12;
export const MODEL_CONTEXT = 13;
export const MODEL_SIZE = 14;
export const EPSILON = 1e-5;

/** Returns a / b, rounded up to an integer; b > 0. */
export function ceilDiv(a: number, b: number): number {
  return Math.ceil(a / b);
}

/** Returns the bits of the planes of n rows of d dimensions. */
export function bitsFor(n: number, d: number): number {
  return n * d <= SMALL_TABLE_BYTES ? SEVEN_BITS : FOUR_BITS;
}

/** Returns the bytes of the plane of a block of rows of d dimensions, in 4 or 7 bits. */
export function planeBytes(d: number, bits: number): number {
  const codes = ceilDiv(d, GROUP_DIMS) * GROUP_DIMS * BLOCK_ROWS;
  return bits === FOUR_BITS ? codes / 2 : codes;
}
