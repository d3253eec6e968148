/** Generated from `sanderling.events.schema` by `python -m tools.js_types`: do not edit. */

import {
  type StructSpec, bool, field, float, int, list, map, struct, text, tuple,
} from "../runtime/structs.js";

export const SCHEMA = 1;

/** Bytes of one encoded event. */
export const MAX_LINE = 262144;

/** Bytes of a decision that its slots may take; the rest, context and caps included, needs less. */
export const ROOM_FOR_SLATE = 196608;

/** Bytes that a slot takes at most, besides its item id. */
export const ROOM_FOR_SLOT = 128;

/** Bytes that the slot of a newcomer or a pinned item takes beyond that. */
export const ROOM_FOR_MARK = 16;

/** Bytes of a decision that the ids of its pool may take, out of what the slots leave. */
export const ROOM_FOR_POOL = 32768;

/** Bytes of one batch, unpacked. */
export const MAX_BATCH_BYTES = 4194304;

export const MAX_BATCH_EVENTS = 4096;

export const MAX_WINDOW_BYTES = 8388608;

export const MAX_LOST_SEQS = 2000;

export const MAX_STEPS = 256;

export const MAX_POOL_ITEMS = 1000;

export const MAX_NAME = 512;

/** Readings with which a wrong wall clock can be corrected later. */
export interface ClockReading {
  /** The device's wall clock, ms since 1970. */
  readonly wall: number;
  /** Milliseconds since the boot began. */
  readonly mono: number;
  /** The id of the boot: one run of the device's process under one identity. */
  readonly boot: string;
}

export const CLOCK_READING_SPEC = struct("ClockReading", [
  field("wall", int()),
  field("mono", int({ min: 0, max: 9007199254740992 })),
  field("boot", text({ pattern: /^[0-9a-f]{32}$/ })),
]);

/** One slot of a slate. */
export interface Slot {
  /** The id of the item shown in it. */
  readonly item: string;
  /**
   * The item's place, from 0, in the greedy order of all eligible items; of a newcomer the size of
   * the pool plus its place among the newcomers; of a pinned item these two sizes plus its place
   * among the pinned ones.
   */
  readonly rank: number;
  /** Whether exploration chose the item. */
  readonly explored: boolean;
  /** The probability with which this slot drew this item, given the slots above it. */
  readonly conditional: number;
  /** The probability over all slates; null where the scheme has no closed form for it. */
  readonly marginal: number | null;
  /** Whether the quota for newcomers chose the item. */
  readonly newcomer?: boolean | undefined;
  /** Whether the app pinned the item to the slot: no policy chose it. */
  readonly pinned?: boolean | undefined;
}

export const SLOT_SPEC = struct("Slot", [
  field("item", text({ min: 1, max: 512 })),
  field("rank", int({ min: 0, max: 9007199254740992 })),
  field("explored", bool()),
  field("conditional", float({ min: 1e-300, max: 1.0 })),
  field("marginal", float({ min: 1e-300, max: 1.0 }), { nullable: true, fallback: () => null }),
  field("newcomer", bool(), { optional: true }),
  field("pinned", bool(), { optional: true }),
]);

/**
 * How many texts an install encoded since it last told, of items and of queries each 16 or more or
 * none, and how many of them were out of the release's domain. Which they were it does not tell.
 */
export interface TextCounts {
  /** Texts of items that the app added on the device. */
  readonly items: number;
  /** Those out of the domain. */
  readonly items_outside: number;
  /** Contexts and queries. */
  readonly queries: number;
  /** Those out of the domain. */
  readonly queries_outside: number;
}

export const TEXT_COUNTS_SPEC = struct("TextCounts", [
  field("items", int({ min: 0, max: 9007199254740992 })),
  field("items_outside", int({ min: 0, max: 9007199254740992 })),
  field("queries", int({ min: 0, max: 9007199254740992 })),
  field("queries_outside", int({ min: 0, max: 9007199254740992 })),
]);

/** One slate, and the exact probability of each of its slots under the policy that drew it. */
export interface Decision {
  readonly type: "decision";
  /** Created once, and kept through all retries. */
  readonly id: string;
  /** The id of the install. */
  readonly install: string;
  /** 1, 2, 3, … without a gap for each install. */
  readonly seq: number;
  /** The user's pseudonym. */
  readonly user: string;
  /** When it happened. */
  readonly clock: ClockReading;
  /** The number of the release that decided. */
  readonly release: number;
  /** The exploration scheme. */
  readonly scheme: string;
  /** The scheme's probability of exploring, in slots that are not newcomers'. */
  readonly epsilon: number;
  /** How many of the best items exploration could draw from. */
  readonly pool: number;
  /** How many items were eligible for the slots that are not pinned. */
  readonly eligible: number;
  /** The slots, first to last. */
  readonly slate: readonly Slot[];
  /**
   * The checksum of the events that made the user's state.
   *
   * Training rebuilds the state from the same events, and drops the decision when its checksum
   * differs.
   */
  readonly state_checksum: string;
  /** The number of these events. */
  readonly state_events: number;
  /** The base64 of the float32 context vector, only where the app lets it leave the device. */
  readonly context: string | null;
  /** The probability with which this decision survived shedding on a full device. */
  readonly pass_probability: number;
  /** How many slots at the front were not explored. */
  readonly guarded?: number | undefined;
  /** The temperature of scheme `softmax`. */
  readonly temperature?: number | undefined;
  /** By attribute, how many items with one of its values the pool could hold. */
  readonly caps?: ReadonlyMap<string, number> | undefined;
  /**
   * The ids of the pool, best first, where the app shaped it (`decision.is_pool_shaped`) and they
   * take at most `ROOM_FOR_POOL` bytes. Absent under randomized response if the app excluded or
   * listed items.
   */
  readonly pool_items?: readonly string[] | undefined;
  /**
   * Where the app boosted some items: what it added to the score of each item of `pool_items`;
   * empty where these are absent.
   */
  readonly boosts?: readonly number[] | undefined;
  /** From how many newcomers outside the pool slots could be drawn. */
  readonly newcomers?: number | undefined;
  /** The probability with which each slot behind the guarded ones showed one of them. */
  readonly newcomer_rate?: number | undefined;
  /** The experiment that the release ran. */
  readonly experiment?: string | undefined;
  /** The arm of the install; absent where it is in none. */
  readonly arm?: string | undefined;
  /** How much unlikeness to the items before each slot counted beside the score. */
  readonly diversity?: number | undefined;
  /** Whether a residual learned on the device was added to the user's vector. */
  readonly adapted?: boolean | undefined;
  /**
   * Sums over the texts that the install encoded; absent until there are 16 items or 16 queries
   * that no decision tells of, and where the release has no domain.
   */
  readonly texts?: TextCounts | undefined;
}

export const DECISION_SPEC = struct("Decision", { tag: "decision" }, [
  field("id", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("install", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("seq", int({ min: 1, max: 9007199254740992 })),
  field("user", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("clock", CLOCK_READING_SPEC),
  field("release", int({ min: 0, max: 9007199254740992 })),
  field("scheme", text()),
  field("epsilon", float({ min: 0.0, max: 1.0 })),
  field("pool", int({ min: 0, max: 9007199254740992 })),
  field("eligible", int({ min: 0, max: 9007199254740992 })),
  field("slate", list(SLOT_SPEC, { min: 1, max: 1000 })),
  field("state_checksum", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("state_events", int({ min: 0, max: 9007199254740992 })),
  field("context", text(), { nullable: true, fallback: () => null }),
  field("pass_probability", float({ min: 1e-300, max: 1.0 }), { fallback: () => 1.0 }),
  field("guarded", int({ min: 0, max: 9007199254740992 }), { optional: true }),
  field("temperature", float({ above: 0.0 }), { optional: true }),
  field(
    "caps",
    map(text({ min: 1, max: 512 }), int({ min: 0, max: 9007199254740992 })),
    { optional: true },
  ),
  field("pool_items", list(text({ min: 1, max: 512 }), { min: 1, max: 1000 }), { optional: true }),
  field(
    "boosts",
    list(float({ min: -1000000000.0, max: 1000000000.0 }), { max: 1000 }),
    { optional: true },
  ),
  field("newcomers", int({ min: 1, max: 9007199254740992 }), { optional: true }),
  field("newcomer_rate", float({ max: 1.0, above: 0.0 }), { optional: true }),
  field("experiment", text({ min: 1, max: 512 }), { optional: true }),
  field("arm", text({ min: 1, max: 512 }), { optional: true }),
  field("diversity", float({ max: 1.0, above: 0.0 }), { optional: true }),
  field("adapted", bool(), { optional: true }),
  field("texts", TEXT_COUNTS_SPEC, { optional: true }),
]);

/**
 * The reward of one slot that was seen.
 *
 * A slot without an outcome was not seen, or its outcome is still due.
 */
export interface Outcome {
  readonly type: "outcome";
  /** Created once, and kept through all retries. */
  readonly id: string;
  /** The id of the install. */
  readonly install: string;
  /** 1, 2, 3, … without a gap for each install. */
  readonly seq: number;
  /** The user's pseudonym. */
  readonly user: string;
  /** When it happened. */
  readonly clock: ClockReading;
  /** The id of the decision. */
  readonly decision: string;
  /** The slot on its slate, from 0. */
  readonly slot: number;
  /** The item in this slot. */
  readonly item: string;
  /**
   * The kind of behaviour: "click" for positive and "skip" for other values unless the app names
   * one.
   */
  readonly kind: string;
  /** The reward. */
  readonly value: number;
  /** Whether the outcome also updated the user's state, as an observation does. */
  readonly updates_state: boolean;
  /**
   * With randomized response: `value` is 1 or -1, and the opposite of the true one with this
   * probability.
   */
  readonly flip_probability?: number | undefined;
  /**
   * Whether it came after the decision's reward window. It may follow a default outcome; the last
   * one counts.
   */
  readonly late?: boolean | undefined;
}

export const OUTCOME_SPEC = struct("Outcome", { tag: "outcome" }, [
  field("id", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("install", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("seq", int({ min: 1, max: 9007199254740992 })),
  field("user", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("clock", CLOCK_READING_SPEC),
  field("decision", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("slot", int({ min: 0, max: 9007199254740992 })),
  field("item", text({ min: 1, max: 512 })),
  field("kind", text({ min: 1, max: 512 })),
  field("value", float({ min: -1.0, max: 1.0 })),
  field("updates_state", bool()),
  field("flip_probability", float({ above: 0.0, below: 0.5 }), { optional: true }),
  field("late", bool(), { optional: true }),
]);

/** Organic behaviour: what the user did without a slate. */
export interface Observation {
  readonly type: "observation";
  /** Created once, and kept through all retries. */
  readonly id: string;
  /** The id of the install. */
  readonly install: string;
  /** 1, 2, 3, … without a gap for each install. */
  readonly seq: number;
  /** The user's pseudonym. */
  readonly user: string;
  /** When it happened. */
  readonly clock: ClockReading;
  /** The item concerned. */
  readonly item: string;
  /** The kind of behaviour. */
  readonly kind: string;
}

export const OBSERVATION_SPEC = struct("Observation", { tag: "observation" }, [
  field("id", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("install", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("seq", int({ min: 1, max: 9007199254740992 })),
  field("user", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("clock", CLOCK_READING_SPEC),
  field("item", text({ min: 1, max: 512 })),
  field("kind", text({ min: 1, max: 512 })),
]);

/**
 * From here on the user's state is what these steps make of an empty one.
 *
 * An event that had updated the state was lost, so that training could not have rebuilt it. The
 * steps are the last of those from which the state was made, not new behaviour.
 */
export interface StateReset {
  readonly type: "state_reset";
  /** Created once, and kept through all retries. */
  readonly id: string;
  /** The id of the install. */
  readonly install: string;
  /** 1, 2, 3, … without a gap for each install. */
  readonly seq: number;
  /** The user's pseudonym. */
  readonly user: string;
  /** When it happened. */
  readonly clock: ClockReading;
  /** Item id and kind, oldest first. */
  readonly steps: readonly (readonly [string, string])[];
}

export const STATE_RESET_SPEC = struct("StateReset", { tag: "state_reset" }, [
  field("id", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("install", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("seq", int({ min: 1, max: 9007199254740992 })),
  field("user", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("clock", CLOCK_READING_SPEC),
  field(
    "steps",
    list(tuple(text({ min: 1, max: 512 }), text({ min: 1, max: 512 })), { min: 1, max: 256 }),
  ),
]);

/** How many events of each type this install dropped, and why. */
export interface Loss {
  readonly type: "loss";
  /** Created once, and kept through all retries. */
  readonly id: string;
  /** The id of the install. */
  readonly install: string;
  /** The number of this event itself. */
  readonly seq: number;
  /** When the loss was declared. */
  readonly clock: ClockReading;
  /** Why they were dropped, see `docs/EVENTS.md`. */
  readonly reason: string;
  /** Dropped decisions. */
  readonly decisions: number;
  /** Dropped outcomes. */
  readonly outcomes: number;
  /** Dropped observations, state resets, and declarations of losses that were rejected. */
  readonly observations: number;
  /**
   * The numbers of those dropped events that may have been sent before: the collector may have
   * them.
   */
  readonly lost_seqs?: readonly number[] | undefined;
}

export const LOSS_SPEC = struct("Loss", { tag: "loss" }, [
  field("id", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("install", text({ pattern: /^[0-9a-f]{32}$/ })),
  field("seq", int({ min: 1, max: 9007199254740992 })),
  field("clock", CLOCK_READING_SPEC),
  field("reason", text({ min: 1, max: 512 })),
  field("decisions", int({ min: 0, max: 9007199254740992 }), { fallback: () => 0 }),
  field("outcomes", int({ min: 0, max: 9007199254740992 }), { fallback: () => 0 }),
  field("observations", int({ min: 0, max: 9007199254740992 }), { fallback: () => 0 }),
  field(
    "lost_seqs",
    list(int({ min: 1, max: 9007199254740992 }), { max: 2000 }),
    { optional: true },
  ),
]);

/** The collector's answer for one event. */
export interface EventVerdict {
  /** The event's id. */
  readonly id: string;
  /** `ok`, `duplicate`, `rejected` (never send it again) or `retry`. */
  readonly verdict: string;
  /** Why it was rejected. */
  readonly reason: string;
}

export const EVENT_VERDICT_SPEC = struct("EventVerdict", [
  field("id", text()),
  field("verdict", text()),
  field("reason", text(), { fallback: () => "" }),
]);

/** The collector's answer to a batch once it is durable. */
export interface BatchResponse {
  /** One for each event. */
  readonly verdicts: readonly EventVerdict[];
  /**
   * Cloned or incomplete installs, whose events can no longer be used for training.
   *
   * Each takes a new identity as soon as everything that it has is acknowledged.
   */
  readonly rotate: readonly string[];
}

export const BATCH_RESPONSE_SPEC = struct("BatchResponse", { lenient: true }, [
  field("verdicts", list(EVENT_VERDICT_SPEC)),
  field("rotate", list(text()), { fallback: () => [] }),
]);

/** Any event. */
export type Event = Decision | Outcome | Observation | StateReset | Loss;

/** The specification of each type of event. */
export const EVENTS: Readonly<Record<Event["type"], StructSpec>> = {
  decision: DECISION_SPEC,
  outcome: OUTCOME_SPEC,
  observation: OBSERVATION_SPEC,
  state_reset: STATE_RESET_SPEC,
  loss: LOSS_SPEC,
};
