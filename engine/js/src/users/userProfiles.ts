/**
 * Per-user data under one identity, and how decisions, behaviour and rewards change it.
 *
 * Each event goes to the outbox together with the states that changed with it. After an erasure or
 * a rotation of the identity, and where another tab has stored something, all that was held here is
 * read anew.
 */

import type { DecisionRecord } from "../decision.js";
import { StorageError } from "../errors.js";
import type { Event } from "../events/wire.js";
import { assignedArm, planOf } from "../exploration/arms.js";
import { gapKey } from "../outbox/eventStore.js";
import type { Outbox } from "../outbox/outbox.js";
import type { Write } from "../outbox/writeQueue.js";
import type { Scorer } from "../ranking/scorer.js";
import type { DecisionInputs } from "../reasons/explainItem.js";
import type { Slate, SlateItem } from "../slate.js";
import { DecisionMemory } from "./decisionMemory.js";
import { EventFactory, type EventPolicy } from "./eventFactory.js";
import { ExplorationBudget } from "./explorationBudget.js";
import { IdentityRotation } from "./identityRotation.js";
import { type ClosedWindow, PREFIX, RewardWindows } from "./rewardWindows.js";
import type { UserSnapshot, UserState } from "./types.js";
import { dump, type Forgotten, UserStates } from "./userStates.js";

/** The reward of an item that was seen and not rewarded in time: not clicked. */
const DEFAULT_REWARD = -1;

/** Rewards of a slate, and how they are recorded. */
export interface SlateRewards {
  readonly slate: Slate;
  readonly values: readonly (readonly [SlateItem, number])[];
  readonly kind: string | null;

  /** Whether the rewards update the user's state; null: the positive ones do. */
  readonly observe: boolean | null;
}

/** How users' data is kept. */
export interface ProfileOptions extends EventPolicy {
  /** How many seconds after a decision its rewards are awaited; null for no windows. */
  readonly windowS: number | null;

  /** Whether events are made; without, users are only kept in memory. */
  readonly records: boolean;
}

/** What is read anew with another identity. */
interface Parts {
  readonly events: EventFactory;
  readonly states: UserStates;
  readonly budget: ExplorationBudget;
  readonly windows: RewardWindows;
}

/**
 * The users of an install under one identity.
 *
 * `nowMs` is everywhere the wall clock in ms since 1970, read once for each call of the engine.
 */
export class UserProfiles {
  readonly #outbox: Outbox;
  readonly #options: ProfileOptions;
  readonly #decisions = new DecisionMemory();
  readonly #forgotten: Forgotten = new Map();
  #rotation: IdentityRotation;
  #install: string;
  #parts: Parts;
  #opensWindows = true;

  constructor(outbox: Outbox, options: ProfileOptions) {
    this.#outbox = outbox;
    this.#options = options;
    this.#install = outbox.identity.install;
    this.#parts = this.#read();
    this.#rotation = new IdentityRotation(outbox);
    outbox.onReload(() => {
      this.#parts = this.#read();
      if (this.#install !== outbox.identity.install) {
        this.#install = outbox.identity.install;
        this.#rotation = new IdentityRotation(outbox);
        this.#opensWindows = true;
        this.#decisions.clear();
      }
    });
  }

  /** Rotates the identity as soon as everything is acknowledged. */
  requestRotation(): void {
    this.#rotation.request();
  }

  /**
   * Takes what other tabs have stored, and records the default outcomes of windows that have ended;
   * calls of the engine begin with this.
   */
  async begin(nowMs: number): Promise<void> {
    await this.#outbox.refresh();
    this.#rotation.recordCreation(nowMs);
    if (this.#parts.windows.isDue(nowMs)) {
      this.#recordDefaults(this.#parts.windows.closeEnded(nowMs));
    }
  }

  /**
   * Closes open windows if a rotation is due; returns whether it may take place now.
   *
   * While it is due no window is opened, and each call gives some of the open ones their default
   * outcomes. It may take place when none is left.
   */
  prepareRotation(days: number | null, nowMs: number): boolean {
    const isDue = this.#rotation.isDue(days, nowMs);
    this.#opensWindows = !isDue;
    return isDue && this.#recordDefaults(this.#parts.windows.closeEarly()) === 0;
  }

  /** Returns what a decision needs of a user. */
  snapshot(user: string, nowMs: number, scorer: Scorer): UserSnapshot {
    const { manifest } = scorer.bundle;
    const arm = assignedArm(manifest.experiment, this.#outbox.identity.install);
    const state = this.#rebuildableState(user, scorer);
    const isBudgeted = planOf(manifest, arm).daily !== null;
    const explored = isBudgeted ? this.#parts.budget.spent(state.pseudonym, nowMs) : 0;
    return { state, explored, arm };
  }

  /**
   * Returns a user's state; resets it first where an event was lost from which it was made.
   *
   * Training rebuilds each state from the uploaded events and drops decisions whose state it cannot
   * rebuild.
   */
  #rebuildableState(user: string, scorer: Scorer): UserState {
    const state = this.#parts.states.get(user, scorer);
    if (state.history.length > 0 && this.#outbox.clearGap(state.pseudonym)) {
      this.#put(() => {
        const { states, events } = this.#parts;
        const reset = states.reset(user, scorer);
        const gap: [string, null] = [gapKey(reset.pseudonym), null];
        const changed = new Map([[states.key(user), dump(reset)], gap]);
        return { events: [events.stateReset(reset)], states: changed };
      });
    }
    return this.#parts.states.get(user, scorer);
  }

  /** Keeps a decision and the vector [t + F] of its context, and counts what it explored. */
  recordDecision(
    record: DecisionRecord,
    state: UserState,
    context: Float32Array | null,
    nowMs: number,
  ): void {
    const { slate, request, scorer, plan } = record;
    const made = this.#options.records
      ? [this.#parts.events.decision(record, state, context)]
      : [];
    const explored = slate.items.filter((item) => item.explored).length;
    this.#put(() => {
      const { states, budget } = this.#parts;
      const current = states.get(request.user, scorer);
      if (current.pseudonym !== state.pseudonym) {
        throw new StorageError("the user was forgotten meanwhile");
      }
      const changed = new Map<string, string>();
      if (plan.daily !== null && explored > 0) {
        changed.set(...budget.spend(state.pseudonym, nowMs, explored));
      }
      if (current.events === 0) {
        changed.set(states.key(request.user), dump(current)); // so that its pseudonym survives
      }
      this.#decisions.remember(record, state, context);
      return { events: made, states: changed };
    });
  }

  /** Returns one of the last decisions; throws `RangeError` for any other. */
  decisionRecord(decision: string): DecisionRecord {
    return this.#decisions.record(decision);
  }

  /**
   * Returns what one of the last decisions was made of; throws `RangeError`, with the reason, for
   * any other, and for one of a user who was forgotten.
   */
  decisionInputs(slate: Slate, scorer: Scorer): DecisionInputs {
    return this.#decisions.inputs(slate, this.#parts.states.get(slate.user, scorer).pseudonym);
  }

  /** Updates a user's state by organic behaviour, and records it. */
  observe(user: string, item: string, kind: string, scorer: Scorer): void {
    this.#put(() => {
      const { states, events } = this.#parts;
      const state = states.observe(user, item, kind, scorer);
      const event = events.observation(state.pseudonym, item, kind);
      return { events: [event], states: new Map([[states.key(user), dump(state)]]) };
    });
  }

  /**
   * Lets the slots of these items wait for rewards.
   *
   * Nothing happens when the user was forgotten since, or while a rotation is due: a user who
   * always has an open window would postpone it for ever.
   */
  openWindow(slate: Slate, items: readonly SlateItem[], nowMs: number, scorer: Scorer): void {
    const slots = new Map(items.map((item) => [item.slot, item.id]));
    const { decision, user, pseudonym } = slate;
    if (slots.size > 0 && this.#opensWindows) {
      this.#put(() => {
        const { states, windows } = this.#parts;
        const isSame = states.get(user, scorer).pseudonym === pseudonym;
        const opened = isSame ? windows.open(decision, pseudonym, slots, nowMs) : [];
        return { events: [], states: new Map(opened) };
      });
    }
  }

  /**
   * Records rewards, and what they change; resolves when all of it is stored.
   *
   * Throws `StorageError` when it cannot be stored, or the slate was made under another pseudonym:
   * the reward would link the two.
   */
  recordRewards(rewards: SlateRewards, nowMs: number, scorer: Scorer): Promise<void> {
    const { slate, values } = rewards;
    const { decision, pseudonym, user } = slate;
    return this.#outbox.submit(() => {
      const { states, events, windows } = this.#parts;
      if (states.get(user, scorer).pseudonym !== pseudonym) {
        throw new StorageError(
          "not stored: since this slate was decided the user's pseudonym has changed, because the" +
            " user was forgotten, or this install was erased or took a new id",
        );
      }
      const isLate = windows.isOver(decision, nowMs);
      const outcomes: Event[] = [];
      const changed = new Map<string, string>();
      for (const [item, value] of values) {
        const updatesState = events.isExact && (rewards.observe ?? value > 0);
        const shown = { decision, slot: item.slot, item: item.id, pseudonym };
        const options = { kind: rewards.kind, updatesState, isLate };
        const outcome = events.outcome(shown, value, options);
        outcomes.push(outcome);
        if (updatesState) {
          const state = states.observe(user, item.id, outcome.kind, scorer);
          changed.set(states.key(user), dump(state));
        }
      }
      const slots = values.map(([item]) => item.slot);
      const settled = windows.settle(decision, pseudonym, slots, nowMs);
      return { events: outcomes, states: new Map([...changed, ...settled]) };
    });
  }

  /** Records the default outcomes of closed windows; returns how many windows there were. */
  #recordDefaults(closed: readonly ClosedWindow[]): number {
    for (const { decision, user, waiting } of closed) {
      const key = PREFIX + decision;
      this.#put(() => {
        if (this.#outbox.state(key) === undefined) {
          throw new StorageError("another tab has closed the window");
        }
        const events = waiting.map(([slot, item]) => {
          const shown = { decision, slot, item, pseudonym: user };
          return this.#parts.events.outcome(shown, DEFAULT_REWARD);
        });
        return { events, states: new Map([[key, null]]) };
      });
    }
    return closed.length;
  }

  /** Deletes all data of a user. */
  async forget(user: string): Promise<void> {
    const { states, budget, windows } = this.#parts;
    const { key, pseudonyms } = states.forget(user);
    const keys = new Set([key]);
    for (const pseudonym of pseudonyms) {
      keys.add(budget.key(pseudonym)).add(gapKey(pseudonym));
      windows.forget(pseudonym).forEach((each) => keys.add(each));
    }
    this.#decisions.forget(user);
    await this.#outbox.forget(pseudonyms, keys);
    states.confirmForgotten(key);
  }

  #put(write: Write): void {
    const { records } = this.#options;
    this.#outbox.put(records ? write : () => ({ events: [], states: write().states }));
  }

  #read(): Parts {
    const outbox = this.#outbox;
    const { identity } = outbox;
    const load = (key: string): string | undefined => outbox.state(key);
    return {
      events: new EventFactory(identity, outbox.boot, this.#options),
      states: new UserStates(load, identity.secret, this.#options.entropy, this.#forgotten),
      budget: new ExplorationBudget(load),
      windows: new RewardWindows(this.#options.windowS, outbox.states(PREFIX)),
    };
  }
}
