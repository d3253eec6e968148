/** What decisions need of users. */

import type { Arm } from "../bundle/manifest.js";

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
