/** What decisions are made of; `decide` makes them. */

import type { Arm, Exploration } from "./bundle/manifest.js";
import type { SearchResult } from "./kernels/kernelSet.js";
import type { Context } from "./ranking/contexts.js";
import type { Eligibility } from "./ranking/eligibility.js";
import type { Newcomers } from "./ranking/newcomers.js";
import type { Scorer } from "./ranking/scorer.js";
import type { Boost, Rule } from "./rules/types.js";
import type { Slate } from "./slate.js";

/** The checked arguments of one call of `Engine.recommend`. */
export interface RecommendRequest {
  readonly user: string;
  readonly k: number;
  readonly context: Context;

  /** Ids of items that may not be shown. */
  readonly exclude: readonly string[];

  /** Caps: how many items of one value of an attribute may be shown. */
  readonly atMost: ReadonlyMap<string, number>;

  /** The ids that the app fixed to slots, by ascending slot. */
  readonly pin: ReadonlyMap<number, string>;

  /** The rule that items must meet to be shown. */
  readonly where: Rule | null;

  /** The ids of the only items that may be shown; null for all. */
  readonly among: readonly string[] | null;

  /** The ids of the items on the pages before, which are not shown again. */
  readonly earlier: readonly string[];

  /** How much unlikeness to the items before counts, in [0, 1] (`exploration/diversity`). */
  readonly diversity: number;

  /** What is added to the scores of items before the pool is chosen. */
  readonly boost: readonly Boost[];
}

/** The pins of one slate, by ascending slot. */
export interface Pins {
  readonly slots: readonly number[];

  /** The rows of their items. */
  readonly rows: Int32Array;
}

/** What a slate is drawn from. */
export interface Candidates {
  /** The pool, best first. */
  readonly ranking: SearchResult;

  /** The newcomers outside the pool, of which there are none without a quota for them. */
  readonly newcomers: Newcomers;

  /** The rows of the items that may not be drawn, -1 for ids that have none; pinned ones too. */
  readonly excluded: Int32Array;

  /** The pinned items that are shown. */
  readonly pins: Pins;

  /** What may be shown, and what is added to its scores. */
  readonly eligible: Eligibility;
}

/** One decision: all that it depended on, the pool's ranking, and the slate. */
export interface DecisionRecord {
  readonly scorer: Scorer;

  /** The user vector [d]. */
  readonly vector: Float32Array;

  readonly plan: Exploration;
  readonly request: RecommendRequest;
  readonly candidates: Candidates;
  readonly slate: Slate;

  /** The arm of an experiment that the install is in. */
  readonly arm: Arm | null;
}
