/** What the core knows of rules: forms that `rules/` makes, and ranking uses. */

/** A checked rule; equal rules have equal canonical forms, the JSON with sorted keys. */
export interface Rule {
  readonly canonical: string;
}

/** One boost: all items that meet a rule score more, or less, by an amount. */
export interface Boost {
  readonly rule: Rule;
  readonly by: number;
}

/** What boosts add to the score of each row. */
export interface RowBoosts {
  /** The different sums of boosts. */
  readonly sums: Float64Array;

  /** Each row's index of them: the bundle's rows, then those of added items. */
  readonly code: Uint8Array;
}
