/** The forms of rules that ranking passes on: what `rules/` makes of a caller's arguments. */

/** A rule as callers write it. */
export type Where = Readonly<Record<string, unknown>>;

/** What an attribute's value may be compared with. */
export type Scalar = string | number | boolean;

/** One 0 or 1 for each row. */
export type Bits = Uint8Array;

/** One attribute, one operator and its operand. */
export interface Comparison {
  readonly attribute: string;
  readonly operator: string;

  /** The operand, or all of a list; of `exists` a boolean. */
  readonly operands: readonly Scalar[];
}

/** `and`, `or` or `not` of some conditions. */
export interface Connective {
  readonly name: string;
  readonly conditions: readonly Condition[];
}

export type Condition = Comparison | Connective;

/** A checked rule; equal rules have equal canonical forms, the JSON with sorted keys. */
export interface Rule {
  readonly canonical: string;
  readonly condition: Condition;
}

/** One boost: all items that meet a rule score more, or less, by an amount. */
export interface Boost {
  readonly rule: Rule;
  readonly by: number;
}

/** What boosts add to the score of each row. */
export interface RowBoosts {
  /** The different sums of boosts, ascending. */
  readonly sums: Float64Array;

  /** Each row's index of them: the bundle's rows, then those of added items. */
  readonly code: Uint8Array;
}
