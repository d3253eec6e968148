/**
 * Making room in a full outbox: whole decisions are shed, chosen by a hash of their id.
 *
 * A row of level n has survived n passes, each with probability 1/2, all decided by the same 64
 * bits of its id. A pass halves the rows of the lowest level, so that all come to have nearly the
 * same weight. A decision takes its outcomes along; one that updated its user's state stays, as an
 * observation, because without it no later decision of the user could be learned from. Observations
 * are shed only where they take more room than decisions, and leave a gap that is marked. Rows that
 * were sent are never touched: the collector may have them.
 */

import * as codec from "../events/codec.js";
import { asObservation } from "../events/semantics.js";
import type { Event } from "../events/wire.js";
import { blake2b } from "../runtime/blake2b.js";
import { utf8 } from "../runtime/text.js";
import { CATALOG, stateBytes } from "./contents.js";
import { CREATED_AT, type EventStore, GAP, UNSCRUBBED } from "./eventStore.js";
import { add, type Counts } from "./losses.js";
import type { EventRow } from "./storage.js";

/** The highest level: the bits of the hash by which rows survive. */
const MAX_LEVEL = 64;

/** The share of the limit that a full outbox is shed down to. */
const TARGET_SHARE = 0.75;

/** The share of the limit that user states may take. */
const STATES_SHARE = 0.25;

/** Bytes of the limit for each mark of a gap: a small outbox keeps few of them. */
const BYTES_PER_MARK = 2048;

const MAX_GAPS = 10_000;

type Types = ReadonlySet<Event["type"]>;
const DECISIONS: Types = new Set(["decision"]);
const BEHAVIOUR: Types = new Set(["observation", "state_reset"]);

/** What was shed. */
export interface Shed {
  /** How many events, by type. */
  readonly counts: Counts;

  /** The ids of the decisions among them. */
  readonly decisions: string[];

  /** The highest of their numbers. */
  lastSeq: number;
}

/** Returns whether an id survives `level` passes: its hash begins with `level` zeros. */
export function survives(id: string, level: number): boolean {
  const digest = blake2b(utf8(id), 8);
  for (let bit = 0; bit < level; bit++) {
    if ((digest[bit >> 3]! >> (7 - (bit & 7))) & 1) {
      return false;
    }
  }
  return true;
}

/** Halves until at most three quarters of `limit` bytes are used; returns what was shed. */
export function makeRoom(store: EventStore, limit: number): Shed {
  trimStates(store, limit);
  const shed: Shed = { counts: new Map(), decisions: [], lastSeq: 0 };
  while (store.contents.usedBytes > TARGET_SHARE * limit && halve(store, shed)) {
    // A pass that removes nothing does not mean that the next will not.
  }
  if (shed.lastSeq > 0) {
    store.declareRemoved("full", new Map(shed.counts), shed.lastSeq);
  }
  return shed;
}

/** Makes one pass over the rows of the lowest level; returns whether there were any. */
function halve(store: EventStore, shed: Shed): boolean {
  const { sentSeq } = store.contents.header;
  const unsent = store.contents.rows().filter((row) => row.seq > sentSeq);
  const types = mostRoom(unsent);
  const candidates = unsent.filter((row) => types.has(row.type) && row.level < MAX_LEVEL);
  if (candidates.length === 0) {
    return false;
  }
  const outcomes = byDecision(unsent);
  const lowest = Math.min(...candidates.map((row) => row.level));
  for (const row of candidates.filter(({ level }) => level === lowest)) {
    pass(store, row, outcomes.get(row.id) ?? [], shed);
  }
  return true;
}

/** Returns the types to halve: behaviour, or decisions with their outcomes, whichever is larger. */
function mostRoom(unsent: readonly EventRow[]): Types {
  const decisions = new Set(unsent.filter(isDecision).map(({ id }) => id));
  let behaviour = 0;
  let other = 0;
  for (const row of unsent) {
    if (BEHAVIOUR.has(row.type) && row.level < MAX_LEVEL) {
      behaviour += row.line.length;
    } else if (isDecision(row) || (row.decision !== null && decisions.has(row.decision))) {
      other += row.line.length;
    }
  }
  return behaviour > other ? BEHAVIOUR : DECISIONS;
}

function byDecision(rows: readonly EventRow[]): Map<string, EventRow[]> {
  const groups = new Map<string, EventRow[]>();
  for (const row of rows) {
    if (row.decision !== null) {
      groups.set(row.decision, [...(groups.get(row.decision) ?? []), row]);
    }
  }
  return groups;
}

function isDecision(row: EventRow): boolean {
  return row.type === "decision" && row.level < MAX_LEVEL;
}

/** Lets a row survive or removes it, a decision with its outcomes. */
function pass(
  store: EventStore,
  row: EventRow,
  outcomes: readonly EventRow[],
  shed: Shed,
): void {
  const level = row.level + 1;
  const event = codec.decode(row.line);
  if (survives(row.id, level)) {
    const isDecided = event.type === "decision";
    const passed = isDecided ? { ...event, pass_probability: 0.5 ** level } : event;
    store.contents.put({ ...row, level, line: codec.encode(passed) });
    return;
  }
  if (event.type === "decision") {
    shed.decisions.push(row.id);
  }
  remove(store, row, shed);
  outcomes.forEach((outcome) => removeOutcome(store, outcome, shed));
}

function remove(store: EventStore, row: EventRow, shed: Shed): void {
  store.markGapOf(row);
  store.contents.remove(row.seq);
  add(shed.counts, row.type);
  shed.lastSeq = Math.max(shed.lastSeq, row.seq);
}

/** Removes an outcome of a shed decision; one that updated a state stays as an observation. */
function removeOutcome(store: EventStore, row: EventRow, shed: Shed): void {
  const event = codec.decode(row.line);
  if (event.type === "outcome" && event.updates_state) {
    const line = codec.encode(asObservation(event));
    store.contents.put({ ...row, type: "observation", decision: null, line });
  } else {
    remove(store, row, shed);
  }
}

/** Bounds the states' size and the number of marks: those written longest ago go first. */
function trimStates(store: EventStore, limit: number): void {
  const kept = new Set([CREATED_AT, UNSCRUBBED]);
  const newestFirst = [...store.contents.states()].reverse();
  const marksLeft = Math.min(MAX_GAPS, Math.floor(limit / BYTES_PER_MARK));
  const marks = newestFirst.filter(([key]) => key.startsWith(GAP));
  marks.slice(marksLeft).forEach(([key]) => store.contents.putState(key, null));

  let size = 0;
  for (const [key, value] of newestFirst) {
    if (!key.startsWith(GAP)) {
      size += stateBytes(key, value);
      if (size > STATES_SHARE * limit && !kept.has(key) && !key.startsWith(CATALOG)) {
        store.contents.putState(key, null);
      }
    }
  }
}
