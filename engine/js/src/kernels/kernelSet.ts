/**
 * What the kernels do, whoever computes it: WebAssembly (`wasmKernels`) or plain JavaScript
 * (`plainKernels`), with the same bits. `loadKernels` chooses.
 */

import type { RowMask } from "./rowMask.js";

/** Rows int8 [n, d], one after the other, with a scale and a bias each. */
export interface Int8Table {
  readonly rows: Int8Array;
  readonly scale: Float32Array;
  readonly bias: Float32Array;

  /** The dimension d of the rows. */
  readonly d: number;
}

/** The best rows and their scores, best first, out of `eligible` ones; ties by row. */
export interface SearchResult {
  readonly rows: Int32Array;
  readonly scores: Float64Array;
  readonly eligible: number;
}

/**
 * An exact index of int8 rows.
 *
 * The score of row i is `dot_i * scale_i * step + bias_i` in float64, where dot_i is the integer
 * product of the row with the query rounded to 23 bits and a sign, and `step` undoes the rounding.
 */
export interface Int8Index {
  /** The number of rows. */
  readonly n: number;

  readonly d: number;

  /**
   * Returns the k >= 0 best rows for a query [d], without the rows that the mask hides or that are
   * listed in `excluded`; listed rows that do not exist are ignored.
   *
   * Throws `RangeError` for a query of another length, and for a mask of another number of rows.
   */
  top(query: Float32Array, k: number, excluded?: Int32Array, mask?: RowMask): SearchResult;

  /** Returns the scores of rows that exist, the same bits as `top` returns. */
  scores(query: Float32Array, rows: Int32Array): Float64Array;

  /**
   * Adds `by` to the biases of distinct rows, rounded to float32; returns what undoes it.
   *
   * The index has a copy of the table's biases, which stay as they are.
   */
  raiseBiases(rows: Int32Array, by: Float32Array): () => void;

  /** Frees the memory; the index must not be used afterwards. */
  release(): void;
}

/** The tensors of `policy.safetensors` that the user model needs, under their names there. */
export interface UserModelTensors {
  /** [c, d] */
  readonly "state.input": Float32Array;
  /** [kinds, c] */
  readonly "state.kind": Float32Array;
  /** [c] */
  readonly "state.decay": Float32Array;
  /** [c] */
  readonly "output.gain": Float32Array;
  /** [c] */
  readonly "output.shift": Float32Array;
  /** [m, c] */
  readonly "output.w1": Float32Array;
  /** [m] */
  readonly "output.b1": Float32Array;
  /** [d, m] */
  readonly "output.w2": Float32Array;
  /** [d] */
  readonly "output.b2": Float32Array;
  /** [d, t] */
  readonly "context.project": Float32Array;
  /** [d, F], in policies with features of contexts, which stand behind the text's vector */
  readonly "context.feature_project"?: Float32Array;
}

/** The recurrence of one bundle: c channels, items of dimension d. */
export interface UserModel {
  /** Returns the state [c] of a user without events. */
  initialState(): Float32Array;

  /** Returns the state [c] after an event of a kind, by its index, with an item vector [d]. */
  step(state: Float32Array, item: Float32Array, kind: number): Float32Array;

  /** Returns what an event with an item vector [d] adds to the decayed state [c]. */
  input(item: Float32Array, kind: number): Float32Array;

  /** Returns the user vector [d] for a state [c] and the vector [t] of a context. */
  userVector(state: Float32Array, context?: Float32Array): Float32Array;

  /** Frees the memory; the model must not be used afterwards. */
  release(): void;
}

/** One implementation of the kernels. */
export interface KernelSet {
  readonly source: "wasm" | "plain";

  /**
   * Returns an index of a table, whose rows and scales must not change afterwards.
   *
   * Throws `RangeError` for arrays that do not fit together, for scales outside 1e-12 … 1e12, and
   * for biases that are not finite or beyond 1e12.
   */
  makeIndex(table: Int8Table): Int8Index;

  /** Returns the user model of a policy; throws `RangeError` for sizes that do not fit. */
  makeUserModel(policy: UserModelTensors): UserModel;

  /**
   * Returns two doubles in [0, 1) for each block, for a decision id of 32 hex digits
   * (docs/MATH.md: Philox4x32-10).
   */
  uniforms(decision: string, blocks: number): Float64Array;
}
