/**
 * The newcomers from which a request's quota draws: eligible ones outside its pool.
 *
 * A newcomer is an item with few impressions in the fleet: the bundle lists it, or the app added it
 * on this device and the bundle does not know it.
 */

import { lowerBound, NO_ROWS } from "./rows.js";

/** The rows `rows`, ascending, but for those at the positions `leftOut`, ascending. */
export class Newcomers {
  constructor(
    readonly rows: Int32Array,
    readonly leftOut: Int32Array = NO_ROWS,
  ) {}

  /** The number of newcomers. */
  get length(): number {
    return this.rows.length - this.leftOut.length;
  }

  /** Returns the row of newcomer i, in the order of `rows`. */
  row(i: number): number {
    // Position p is left out and has p - l newcomers before it, where l were left out earlier.
    let low = 0;
    let high = this.leftOut.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.leftOut[middle]! - middle <= i) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return this.rows[i + low]!;
  }
}

/** What there is without a quota. */
export const NO_NEWCOMERS = new Newcomers(NO_ROWS);

/**
 * Returns the newcomers, ascending rows, that are in none of the lists `leftOut`.
 *
 * `isNewcomer` [n + 1] tells them from the n rows by 1; its last one is 0, and -1 is no newcomer.
 * The time depends on the lists alone.
 */
export function outside(
  rows: Int32Array,
  isNewcomer: Uint8Array,
  ...leftOut: readonly Int32Array[]
): Newcomers {
  const listed = new Set<number>();
  for (const list of leftOut) {
    for (const row of list) {
      if (isNewcomer[row] === 1) {
        listed.add(row);
      }
    }
  }
  if (listed.size === 0) {
    return new Newcomers(rows);
  }
  const positions = [...listed].sort((a, b) => a - b).map((row) => lowerBound(rows, row));
  return new Newcomers(rows, Int32Array.from(positions));
}
