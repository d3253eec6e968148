/** Rows of a table that a search leaves out: made once, and used by many searches. */
export class RowMask {
  /** The number of rows of the table. */
  readonly n: number;

  /** How many rows are hidden. */
  readonly count: number;

  /** One bit for each row, the lowest first, in whole words of 64 bits. */
  readonly bits: Uint8Array;

  /** Makes a mask of n numbers, of which those other than 0 are hidden rows. */
  constructor(readonly hidden: Uint8Array) {
    this.n = hidden.length;
    this.bits = new Uint8Array(Math.ceil(hidden.length / 64) * 8);
    let count = 0;
    for (let row = 0; row < hidden.length; row++) {
      if (hidden[row] !== 0) {
        this.bits[row >> 3]! |= 1 << (row & 7);
        count += 1;
      }
    }
    this.count = count;
  }
}
