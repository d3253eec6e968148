/** One recommendation: a user's snapshot and a context become a slate, which is recorded. */

import type { Exploration } from "../bundle/manifest.js";
import { decide } from "../decide.js";
import type { RecommendRequest } from "../decision.js";
import { planOf } from "../exploration/arms.js";
import { greedy } from "../exploration/schemes.js";
import { contextVector } from "../ranking/contexts.js";
import type { Scorer } from "../ranking/scorer.js";
import { type Entropy, uuid7 } from "../runtime/clock.js";
import type { Slate } from "../slate.js";
import type { UserSnapshot } from "./types.js";
import type { UserProfiles } from "./userProfiles.js";

/** What became of the contexts of `recommend` and the queries of `search`. */
export interface EncoderCounters {
  /** Those that were encoded. */
  encoded: number;

  /** Those that could not be: slates were decided without a context, only words searched. */
  failed: number;

  /** Why the last of these could not be encoded. */
  lastFault: string | null;
}

/** Makes the slates of one engine, and counts what its encoder does. */
export class Recommender {
  /** What became of contexts and queries since the engine was opened. */
  readonly counters: EncoderCounters = { encoded: 0, failed: 0, lastFault: null };

  readonly #entropy: Entropy;

  constructor(entropy: Entropy) {
    this.#entropy = entropy;
  }

  /** Returns the slate of a request; `isGreedy` switches exploration off. */
  async recommend(
    profiles: UserProfiles,
    scorer: Scorer,
    request: RecommendRequest,
    isGreedy: boolean,
    nowMs: number,
  ): Promise<Slate> {
    const context = await contextVector(
      request.context,
      scorer.contextFeatures,
      (text) => this.encode(scorer, text),
      scorer.bundle.manifest.sizes.text,
    );
    const user = profiles.snapshot(request.user, nowMs, scorer);
    let plan = planOf(scorer.bundle.manifest, user.arm);
    if (isGreedy || isSpent(plan, user)) {
      plan = greedy(plan);
    }
    const decision = uuid7(nowMs, this.#entropy);
    const subject = {
      vector: userVector(scorer, user, context),
      pseudonym: user.state.pseudonym,
    };
    const decided = decide(scorer, subject, plan, request, decision);
    const { arm } = user;
    const slate = arm === null ? decided.slate : decided.slate.with({ arm: arm.name });
    if (slate.length > 0) {
      profiles.recordDecision({ ...decided, arm, slate }, user.state, context, nowMs);
    }
    return slate;
  }

  /** Returns the vector [t] of a context or a query, null where it cannot be encoded. */
  async encode(scorer: Scorer, text: string): Promise<Float32Array | null> {
    try {
      const vector = await scorer.encoder.encode(text);
      this.counters.encoded += 1;
      return vector;
    } catch (error) {
      // Whatever it is, a slate without context is better than none.
      const fault = error instanceof Error ? error.message : String(error);
      if (fault !== this.counters.lastFault) {
        // Search asks at each key: what is missing from an app is missing every time.
        console.warn(`sanderling: text not encoded: ${fault}`);
      }
      this.counters.failed += 1;
      this.counters.lastFault = fault;
      return null;
    }
  }
}

/** Returns whether the user's daily budget forbids to explore. */
function isSpent(plan: Exploration, user: UserSnapshot): boolean {
  return plan.daily !== null && user.explored >= plan.daily;
}

/**
 * Returns the vector [d] of a user for a context [t + F].
 *
 * Without personalization it is 0: scores are biases.
 */
export function userVector(
  scorer: Scorer,
  user: UserSnapshot,
  context: Float32Array | null,
): Float32Array {
  if (user.arm !== null && !user.arm.personalized) {
    return new Float32Array(scorer.bundle.manifest.sizes.dim);
  }
  return scorer.userModel.userVector(user.state.vector, context ?? undefined);
}
