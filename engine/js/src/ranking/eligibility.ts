/** Which items a request may show: those that its rules leave of the catalog. */

import { RowMask } from "../kernels/rowMask.js";
import type { RowBoosts } from "../rules/types.js";
import { concatenate, lowerBound } from "./rows.js";

/** Hide rows of the bundle and of the added items; null for no mask. */
export type Masks = readonly [RowMask | null, RowMask | null];

/** So few rows are scored one by one: a search of all would take longer. */
const FEW_ROWS = 512;

/** Eligible rows that have the same boost; a search takes `rows` where they are given. */
export interface Part {
  readonly boost: number;
  readonly masks: Masks;
  readonly rows: Int32Array | null;
}

/** The fields of `Eligibility`. */
export interface EligibilityFields {
  /** How many of the rows are the bundle's. */
  readonly items: number;

  readonly masks: Masks;

  /** The rows of newcomers that are eligible, ascending. */
  readonly newcomers: Int32Array;

  /** [rows + 1]: 1 tells them from other rows; the last is 0. */
  readonly isNewcomer: Uint8Array;

  /** The only eligible rows, ascending, where the caller listed items (`among`). */
  readonly rows?: Int32Array | null;

  /** What is added to scores, null without boosts. */
  readonly boosts?: RowBoosts | null;

  /** With boosts: the eligible rows by what is added to their scores. */
  readonly parts?: readonly Part[];
}

/** The eligible rows of the bundle and of the added items; excluded ids come on top. */
export class Eligibility {
  readonly items: number;
  readonly masks: Masks;
  readonly newcomers: Int32Array;
  readonly isNewcomer: Uint8Array;
  readonly rows: Int32Array | null;
  readonly boosts: RowBoosts | null;
  readonly parts: readonly Part[];
  #newcomerMasks: Masks | null = null;

  constructor(fields: EligibilityFields) {
    this.items = fields.items;
    this.masks = fields.masks;
    this.newcomers = fields.newcomers;
    this.isNewcomer = fields.isNewcomer;
    this.rows = fields.rows ?? null;
    this.boosts = fields.boosts ?? null;
    this.parts = fields.parts ?? [];
  }

  /** All rows but eligible newcomers, of the bundle and of the added items. */
  get newcomerMasks(): Masks {
    if (this.#newcomerMasks === null) {
      const hidden = this.isNewcomer.subarray(0, -1).map((is) => 1 - is);
      this.#newcomerMasks = this.#masksOf(hidden);
    }
    return this.#newcomerMasks;
  }

  /** Returns what is eligible under a rule that holds for some rows, 1 for each [n] and [a]. */
  confined(isMatch: readonly [Uint8Array, Uint8Array]): Eligibility {
    const hidden = new Uint8Array(this.isNewcomer.length - 1);
    const isNewcomer = new Uint8Array(this.isNewcomer.length);
    const [bundled, added] = isMatch;
    const before = this.masks[0]?.hidden;
    for (let row = 0; row < hidden.length; row++) {
      const matches = row < this.items ? bundled[row]! : added[row - this.items]!;
      hidden[row] = matches === 0 || (before?.[row] ?? 0) !== 0 ? 1 : 0;
      isNewcomer[row] = matches === 0 ? 0 : this.isNewcomer[row]!;
    }
    return new Eligibility({
      items: this.items,
      masks: this.#masksOf(hidden),
      newcomers: this.newcomers.filter((row) => isNewcomer[row] === 1),
      isNewcomer,
    });
  }

  /** Returns the same with amounts added to the scores. */
  boosted(boosts: RowBoosts): Eligibility {
    const eligible = this.#eligibleRows();
    const parts: Part[] = [];
    boosts.sums.forEach((boost, code) => {
      const rows = eligible.filter((row) => boosts.code[row] === code);
      if (rows.length > FEW_ROWS && this.rows === null) {
        const hidden = new Uint8Array(boosts.code.length).fill(1);
        for (const row of rows) {
          hidden[row] = 0;
        }
        parts.push({ boost, masks: this.#masksOf(hidden), rows: null });
      } else if (rows.length > 0) {
        parts.push({ boost, masks: [null, null], rows });
      }
    });
    return new Eligibility({ ...this.#fields(), boosts, parts });
  }

  /** Returns whether a row is eligible. */
  holds(row: number): boolean {
    if (this.rows !== null) {
      return this.rows[lowerBound(this.rows, row)] === row;
    }
    return row >= 0 && !this.#isHidden(row);
  }

  /** Returns what is eligible of listed rows, of which -1 stands for ids that have none. */
  among(listed: Int32Array): Eligibility {
    const distinct = Int32Array.from(new Set(listed)).sort();
    const rows = distinct.filter((row) => row >= 0 && !this.#isHidden(row));
    const newcomers = rows.filter((row) => this.isNewcomer[row] === 1);
    const isNewcomer = new Uint8Array(this.isNewcomer.length);
    for (const row of newcomers) {
      isNewcomer[row] = 1;
    }
    return new Eligibility({ items: this.items, masks: this.masks, newcomers, isNewcomer, rows });
  }

  #isHidden(row: number): boolean {
    const [mask, addedMask] = this.masks;
    const hidden = row < this.items ? mask?.hidden[row] : addedMask?.hidden[row - this.items];
    return (hidden ?? 0) !== 0;
  }

  /** Returns all eligible rows, ascending. */
  #eligibleRows(): Int32Array {
    if (this.rows !== null) {
      return this.rows;
    }
    const n = this.isNewcomer.length - 1;
    const rows = new Int32Array(n);
    let count = 0;
    for (let row = 0; row < n; row++) {
      if (!this.#isHidden(row)) {
        rows[count] = row;
        count += 1;
      }
    }
    return concatenate(rows.subarray(0, count));
  }

  #masksOf(hidden: Uint8Array): Masks {
    return [
      new RowMask(hidden.subarray(0, this.items)),
      new RowMask(hidden.subarray(this.items)),
    ];
  }

  #fields(): EligibilityFields {
    const { items, masks, newcomers, isNewcomer, rows, boosts, parts } = this;
    return { items, masks, newcomers, isNewcomer, rows, boosts, parts };
  }
}
