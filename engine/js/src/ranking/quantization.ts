/** Vectors -> int8 rows with a scale each. */

import { rounded } from "../kernels/int8Table.js";
import { MIN_VALUE } from "../kernels/layout.js";

const LARGEST = 127;

/** Int8 rows [n, d], one after the other, and their scales [n]. */
export interface QuantizedRows {
  readonly rows: Int8Array;
  readonly scale: Float32Array;
}

/**
 * Returns int8 rows and scales for vectors [d], nearest to the products of both.
 *
 * Vectors without a number beyond 1e-10 count as zero.
 */
export function quantizeRows(vectors: readonly Float32Array[], d: number): QuantizedRows {
  const rows = new Int8Array(vectors.length * d);
  const scale = new Float32Array(vectors.length);
  vectors.forEach((vector, i) => {
    const peak = vector.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
    scale[i] = peak > Math.fround(128 * MIN_VALUE) ? peak / LARGEST : 1;
    for (let j = 0; j < d; j++) {
      const quotient = Math.fround(vector[j]! / scale[i]!);
      rows[i * d + j] = Math.min(Math.max(rounded(quotient), -LARGEST), LARGEST);
    }
  });
  return { rows, scale };
}
