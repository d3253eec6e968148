/** Lists of rows as `Int32Array`, of which -1 stands for ids that have none. */

import type { SearchResult } from "../kernels/kernelSet.js";

/** No rows. */
export const NO_ROWS = new Int32Array(0);

/** Returns the first position of an ascending list whose value is not below `value`. */
export function lowerBound(sorted: Int32Array, value: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! < value) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/** Returns the rows of several lists, one after the other. */
export function concatenate(...lists: readonly Int32Array[]): Int32Array {
  const filled = lists.filter((list) => list.length > 0);
  if (filled.length <= 1) {
    return filled[0] ?? NO_ROWS;
  }
  const joined = new Int32Array(filled.reduce((sum, list) => sum + list.length, 0));
  let start = 0;
  for (const list of filled) {
    joined.set(list, start);
    start += list.length;
  }
  return joined;
}

/** Returns the rows that are not among `excluded`, in their order. */
export function without(rows: Int32Array, excluded: Int32Array): Int32Array {
  if (excluded.length === 0) {
    return rows;
  }
  const left = new Set(excluded);
  return rows.filter((row) => !left.has(row));
}

/** Returns a list with a number added to each row, -1 where the sum is negative. */
export function shifted(rows: Int32Array, by: number): Int32Array {
  return rows.map((row) => Math.max(row + by, -1));
}

/** Returns the k best rows by score descending, then row ascending. */
export function best(
  rows: Int32Array,
  scores: Float64Array,
  k: number,
  eligible: number,
): SearchResult {
  const order = Array.from(rows.keys()).sort(
    (a, b) => scores[b]! - scores[a]! || rows[a]! - rows[b]!,
  );
  const places = order.slice(0, k);
  return {
    rows: Int32Array.from(places, (place) => rows[place]!),
    scores: Float64Array.from(places, (place) => scores[place]!),
    eligible,
  };
}

/** Returns the k best rows of two tables, those of the second numbered from n on. */
export function merged(
  first: SearchResult,
  second: SearchResult,
  n: number,
  k: number,
): SearchResult {
  const rows = concatenate(first.rows, shifted(second.rows, n));
  const scores = new Float64Array(rows.length);
  scores.set(first.scores);
  scores.set(second.scores, first.scores.length);
  return best(rows, scores, k, first.eligible + second.eligible);
}
