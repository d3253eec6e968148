/** What the indexes of all kernels have in common: checks, and scores of single rows. */

import type { Int8Table } from "./kernelSet.js";
import { MAX_CODE, MAX_VALUE, MIN_VALUE } from "./layout.js";
import type { RowMask } from "./rowMask.js";

/** A query as integers of at most 23 bits and a sign, and their step. */
export interface QueryCodes {
  readonly codes: Float64Array;
  readonly step: number;
}

const ROUNDING_SHIFT = 6755399441055744.0; // 1.5 x 2^52

/** Returns a double of magnitude below 2^51 rounded to an integer, halves to even. */
export function rounded(x: number): number {
  return x + ROUNDING_SHIFT - ROUNDING_SHIFT;
}

/**
 * Returns the codes of a query (docs/MATH.md); one without a direction, not finite or outside
 * 1e-12 … 1e12, becomes zeros, with step 0.
 */
export function quantizeQuery(query: Float32Array): QueryCodes {
  let peak = 0;
  for (const value of query) peak = Math.max(peak, Math.abs(value));
  const codes = new Float64Array(query.length);
  if (!(MIN_VALUE <= peak && peak <= MAX_VALUE)) return { codes, step: 0 };

  const inverse = MAX_CODE / peak;
  for (let j = 0; j < query.length; j++) codes[j] = rounded(query[j]! * inverse);
  return { codes, step: peak / MAX_CODE };
}

/** Returns the score of one row for a query, the same bits from all kernels. */
export function rowScore(table: Int8Table, query: QueryCodes, row: number): number {
  const { rows, d } = table;
  const { codes } = query;
  const start = row * d;
  let dot = 0; // an integer below 2^53, so no addition rounds
  for (let j = 0; j < d; j++) dot += rows[start + j]! * codes[j]!;
  return dot * table.scale[row]! * query.step + table.bias[row]!;
}

/** Returns the scores of rows that exist for a query [d]. */
export function rowScores(table: Int8Table, query: Float32Array, rows: Int32Array): Float64Array {
  checkQuery(table.d, query);
  const codes = quantizeQuery(query);
  return Float64Array.from(rows, (row) => rowScore(table, codes, row));
}

/** Returns the number of rows of a table; throws `RangeError` where its parts do not fit. */
export function checkTable(table: Int8Table): number {
  const n = table.scale.length;
  if (table.rows.length !== n * table.d || table.bias.length !== n) {
    throw new RangeError(
      `index: expected ${n} rows of ${table.d} numbers and as many biases as scales, found` +
        ` ${table.rows.length} numbers and ${table.bias.length} biases`,
    );
  }
  // Written so that NaN fails, too.
  const isBounded =
    table.scale.every((scale) => scale >= MIN_VALUE && scale <= MAX_VALUE) &&
    table.bias.every((bias) => Math.abs(bias) <= MAX_VALUE);
  if (!isBounded) {
    throw new RangeError("expected scales of 1e-12 to 1e+12, and biases up to that");
  }
  return n;
}

/** Throws `RangeError` for a query of another length than d. */
export function checkQuery(d: number, query: Float32Array): void {
  if (query.length !== d) {
    throw new RangeError(`expected a query of ${d} numbers, found ${query.length}`);
  }
}

/** Throws `RangeError` for a mask of another number of rows than n. */
export function checkMask(n: number, mask: RowMask | undefined): void {
  if (mask !== undefined && mask.n !== n) {
    throw new RangeError(`expected a mask of ${n} rows, found one of ${mask.n}`);
  }
}
