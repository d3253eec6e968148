/** What decisions and recorded behaviour need of users, whoever stores them. */

import type { Arm } from "../bundle/manifest.js";
import type { DecisionRecord } from "../decision.js";
import type { Scorer } from "../ranking/scorer.js";
import type { DecisionInputs } from "../reasons/explainItem.js";
import type { Slate } from "../slate.js";

/** The state of one user under one pseudonym. */
export interface UserState {
  /** 32 random hex digits. */
  readonly pseudonym: string;

  /** The vector space, that of one bundle, in which `vector` lives. */
  readonly space: string;

  /** The state [c]. */
  readonly vector: Float32Array;

  /** The checksum of the events that made the state. */
  readonly checksum: string;

  /** How many events made the state. */
  readonly events: number;

  /** The last of these events: item id and kind, oldest first. */
  readonly history: readonly (readonly [string, string])[];
}

/** What a decision needs of its user. */
export interface UserSnapshot {
  /** The user's state and pseudonym. */
  readonly state: UserState;

  /** The explored slots that the user was shown today. */
  readonly explored: number;

  /** The arm of the bundle's experiment that the install is in, if it is in one. */
  readonly arm: Arm | null;
}

/**
 * The users of an install under one identity.
 *
 * `nowMs` is everywhere the wall clock in ms since 1970, read once for each call of the engine.
 */
export interface Profiles {
  /** Returns what a decision needs of a user. */
  snapshot(user: string, nowMs: number, scorer: Scorer): Promise<UserSnapshot>;

  /** Keeps a decision and the vector [t] of its context, and counts what it explored. */
  recordDecision(
    record: DecisionRecord,
    state: UserState,
    context: Float32Array | null,
    nowMs: number,
  ): Promise<void>;

  /** Returns one of the last decisions; throws `RangeError` for any other. */
  decisionRecord(decision: string): DecisionRecord;

  /**
   * Returns what one of the last decisions was made of; throws `RangeError`, with the reason, for
   * any other, and for one of a user who was forgotten.
   */
  decisionInputs(slate: Slate, scorer: Scorer): Promise<DecisionInputs>;

  /** Updates a user's state by organic behaviour, and records it. */
  observe(user: string, item: string, kind: string, scorer: Scorer): Promise<void>;

  /** Deletes all data of a user. */
  forget(user: string): Promise<void>;
}
