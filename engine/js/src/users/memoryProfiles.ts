/** Users of an engine that stores nothing: they live as long as the page. */

import type { DecisionRecord } from "../decision.js";
import { assignedArm, planOf } from "../exploration/arms.js";
import type { Scorer } from "../ranking/scorer.js";
import { type Entropy, hex } from "../runtime/clock.js";
import { LruCache } from "../runtime/lruCache.js";
import type { Profiles, UserSnapshot, UserState } from "./types.js";

const DAY_MS = 86_400_000;
const CACHED_USERS = 1024;
const MAX_HISTORY = 256;
const REMEMBERED_DECISIONS = 256;

/** The users of one engine, and the last of its decisions. */
export class MemoryProfiles implements Profiles {
  readonly #entropy: Entropy;
  readonly #install: string;
  readonly #states = new LruCache<string, UserState>(CACHED_USERS);
  readonly #budgets = new LruCache<string, { day: number; slots: number }>(CACHED_USERS);
  readonly #decisions = new LruCache<string, DecisionRecord>(REMEMBERED_DECISIONS);

  constructor(entropy: Entropy) {
    this.#entropy = entropy;
    this.#install = hex(entropy(16));
  }

  snapshot(user: string, nowMs: number, scorer: Scorer): Promise<UserSnapshot> {
    const { manifest } = scorer.bundle;
    const arm = assignedArm(manifest.experiment, this.#install);
    const state = this.#state(user, scorer);
    const isBudgeted = planOf(manifest, arm).daily !== null;
    const explored = isBudgeted ? this.#spent(state.pseudonym, nowMs) : 0;
    return Promise.resolve({ state, explored, residual: null, arm });
  }

  recordDecision(
    record: DecisionRecord,
    state: UserState,
    _context: Float32Array | null,
    nowMs: number,
  ): Promise<void> {
    const explored = record.slate.items.filter((item) => item.explored).length;
    if (this.#state(record.request.user, record.scorer).pseudonym === state.pseudonym) {
      this.#decisions.set(record.slate.decision, record);
      if (record.plan.daily !== null && explored > 0) {
        const slots = this.#spent(state.pseudonym, nowMs) + explored;
        this.#budgets.set(state.pseudonym, { day: Math.floor(nowMs / DAY_MS), slots });
      }
    }
    return Promise.resolve();
  }

  decisionRecord(decision: string): DecisionRecord {
    const record = this.#decisions.peek(decision);
    if (record === undefined) {
      throw new RangeError(
        `decision ${decision}: expected one of the last ${REMEMBERED_DECISIONS} of this engine,` +
          " found an older one or another engine's",
      );
    }
    return record;
  }

  observe(user: string, item: string, kind: string, scorer: Scorer): Promise<void> {
    const before = this.#state(user, scorer);
    this.#states.set(user, {
      ...before,
      vector: step(before.vector, item, kind, scorer),
      events: before.events + 1,
      history: [...before.history.slice(1 - MAX_HISTORY), [item, kind]],
    });
    return Promise.resolve();
  }

  forget(user: string): Promise<void> {
    const state = this.#states.peek(user);
    this.#states.delete(user);
    if (state !== undefined) {
      this.#budgets.delete(state.pseudonym);
    }
    for (const [decision, record] of [...this.#decisions.entries()]) {
      if (record.request.user === user) {
        this.#decisions.delete(decision);
      }
    }
    return Promise.resolve();
  }

  /** Returns a user's state in the scorer's space; an unknown user has an empty one. */
  #state(user: string, scorer: Scorer): UserState {
    const known = this.#states.get(user);
    if (known?.space === scorer.space) {
      return known;
    }
    const history = known?.history ?? [];
    let vector = scorer.userModel.initialState();
    for (const [item, kind] of history) {
      vector = step(vector, item, kind, scorer);
    }
    const pseudonym = known?.pseudonym ?? hex(this.#entropy(16));
    const events = known?.events ?? 0;
    const state = { pseudonym, space: scorer.space, vector, checksum: "", events, history };
    this.#states.set(user, state);
    return state;
  }

  #spent(pseudonym: string, nowMs: number): number {
    const budget = this.#budgets.peek(pseudonym);
    return budget?.day === Math.floor(nowMs / DAY_MS) ? budget.slots : 0;
  }
}

/** Returns the state after an event; an item that is not in the catalog changes nothing. */
function step(vector: Float32Array, item: string, kind: string, scorer: Scorer): Float32Array {
  const row = scorer.find(item);
  return row === null ? vector : scorer.userModel.step(vector, scorer.vector(row), kind);
}
