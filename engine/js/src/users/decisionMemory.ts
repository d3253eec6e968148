/** The last decisions of an engine, with what they were made of. */

import type { DecisionRecord } from "../decision.js";
import type { DecisionInputs } from "../reasons/explainItem.js";
import { LruCache } from "../runtime/lruCache.js";
import type { Slate } from "../slate.js";
import type { UserState } from "./types.js";

/** Decisions that can be explained. */
const REMEMBERED_DECISIONS = 256;

/** Keeps decisions until they are too many, or their user is forgotten. */
export class DecisionMemory {
  readonly #inputs = new LruCache<string, DecisionInputs>(REMEMBERED_DECISIONS);

  /** Keeps a decision, its user's state, and the vector [t + F] of its context. */
  remember(record: DecisionRecord, state: UserState, context: Float32Array | null): void {
    const history = { state: state.vector, steps: state.history, events: state.events };
    this.#inputs.set(record.slate.decision, { record, history, context });
  }

  /** Returns one of the last decisions; throws `RangeError` for any other. */
  record(decision: string): DecisionRecord {
    const inputs = this.#inputs.peek(decision);
    if (inputs === undefined) {
      throw unknown(decision);
    }
    return inputs.record;
  }

  /**
   * Returns what one of the last decisions was made of, for a user whose pseudonym is given.
   *
   * Throws `RangeError`, with the reason, for any other, and for one of a user who was forgotten.
   */
  inputs(slate: Slate, pseudonym: string): DecisionInputs {
    const inputs = this.#inputs.peek(slate.decision);
    if (inputs !== undefined) {
      return inputs;
    }
    if (pseudonym === slate.pseudonym) {
      throw unknown(slate.decision);
    }
    throw new RangeError(
      `decision ${slate.decision}: its user was forgotten since, or this install was erased or` +
        " took a new id",
    );
  }

  /** Drops the decisions of a user. */
  forget(user: string): void {
    for (const [decision, { record }] of [...this.#inputs.entries()]) {
      if (record.request.user === user) {
        this.#inputs.delete(decision);
      }
    }
  }

  /** Drops all decisions. */
  clear(): void {
    this.#inputs.clear();
  }
}

function unknown(decision: string): RangeError {
  return new RangeError(
    `decision ${decision}: expected one of the last ${REMEMBERED_DECISIONS} of this engine,` +
      " found an older one or another engine's",
  );
}
