/**
 * The rows of the outbox: numbered events and user states.
 *
 * Every method that writes changes `contents`; `Outbox` commits these changes.
 */

import { EventError, shown } from "../errors.js";
import { BootClock } from "../events/bootClock.js";
import * as codec from "../events/codec.js";
import { asObservation, movedBy } from "../events/semantics.js";
import { type Event, type Loss, MAX_LINE, MAX_LOST_SEQS, MAX_NAME } from "../events/wire.js";
import { type Clock, type Entropy, uuid7 } from "../runtime/clock.js";
import { hex, utf8Length } from "../runtime/text.js";
import { CATALOG, OutboxContents } from "./contents.js";
import { add, type Counts, Losses, total } from "./losses.js";
import type { EventRow, OutboxHeader, StoredContents } from "./storage.js";

/** Prefix of the marks that say whose state training cannot rebuild. */
export const GAP = "gap:";

/** The key under which the time is kept at which this identity was created. */
export const CREATED_AT = "created";

/** The key of the mark that deleted bytes have not been overwritten yet. */
export const UNSCRUBBED = "unscrubbed";

/** Shed decisions that are remembered; the reward of an older one is stored all the same. */
const MAX_SHED = 10_000;

const DECISION_SHED = "its decision was shed when the outbox was full";

/** Events and states that are written atomically. */
export interface WriteRequest {
  readonly events: readonly Event[];

  /** By key; null deletes the state. */
  readonly states: ReadonlyMap<string, string | null>;
}

/** What `write` did that is undone with the rows. */
interface Written {
  readonly gaps: ReadonlySet<string>;
  readonly dropped: ReadonlyMap<string, Counts>;
  readonly refused: ReadonlyMap<string, Counts>;
}

const NOTHING_WRITTEN: Written = { gaps: new Set(), dropped: new Map(), refused: new Map() };

/** Returns a new random identity, of which nothing is stored yet. */
function freshHeader(entropy: Entropy): OutboxHeader {
  return { install: hex(entropy(16)), secret: hex(entropy(32)), seq: 0, sentSeq: 0 };
}

/** Returns the key of the mark of a pseudonym's gap. */
export function gapKey(pseudonym: string): string {
  return GAP + pseudonym;
}

/** The rows and states of one outbox. */
export class EventStore {
  contents: OutboxContents;
  readonly losses = new Losses();
  boot: BootClock;
  readonly #clock: Clock;
  readonly #entropy: Entropy;
  readonly #shed = new Set<string>();
  #unmarked = new Set<string>(); // pseudonyms whose gaps are not marked in the storage yet
  #uncommitted = NOTHING_WRITTEN;
  #declarations: Map<string, string> | null = null; // by reason the id; null: not read yet

  constructor(stored: StoredContents, clock: Clock, entropy: Entropy) {
    this.#clock = clock;
    this.#entropy = entropy;
    this.boot = new BootClock(clock, entropy);
    this.contents = new OutboxContents(stored, freshHeader(entropy));
    if (stored.wasDamaged) {
      this.insert(this.loss("outbox_reset", new Map()));
      this.losses.count("outbox_reset", 1);
    }
  }

  /** Takes what another tab has stored in place of what is here. */
  replace(stored: StoredContents): void {
    const before = this.contents.header.install;
    this.contents = new OutboxContents(stored, freshHeader(this.#entropy));
    this.#declarations = null;
    if (this.contents.header.install !== before) {
      this.boot = new BootClock(this.#clock, this.#entropy);
      this.#unmarked.clear();
      this.losses.takeUndeclared();
    }
  }

  /** Keeps what has changed: it is committed. */
  confirm(): void {
    this.contents.confirm();
    this.#uncommitted.refused.forEach((counts, reason) => this.losses.count(reason, total(counts)));
    this.#uncommitted = NOTHING_WRITTEN;
  }

  /** Undoes what has changed since the last commit. */
  rollBack(): void {
    this.contents.rollBack();
    this.#declarations = null;
    this.losses.putBack(this.#uncommitted.dropped);
    this.#uncommitted.gaps.forEach((pseudonym) => this.#unmarked.add(pseudonym));
    this.#uncommitted = NOTHING_WRITTEN;
  }

  /** Whether an event was lost that had updated a user's state. */
  hasGap(pseudonym: string): boolean {
    return this.#unmarked.has(pseudonym) || this.contents.state(gapKey(pseudonym)) !== undefined;
  }

  /** Notes that a gap is about to be closed by a `StateReset`. */
  clearGap(pseudonym: string): void {
    this.#unmarked.delete(pseudonym);
  }

  /** Counts events that will not be written, and notes their gaps. */
  drop(reason: string, events: readonly Event[]): void {
    this.losses.drop(reason, events);
    this.noteGaps(events);
  }

  /** Notes the gaps that these events leave in their users' states. */
  noteGaps(events: readonly Event[]): void {
    const ours = events.filter(({ install }) => install === this.contents.header.install);
    movedBy(ours).forEach((pseudonym) => this.#unmarked.add(pseudonym));
  }

  /**
   * Numbers and adds events; returns for each request why some of it was refused, or "".
   *
   * New gaps are marked and dropped events declared in the same commit. Every event uses up a
   * number, stored or dropped, so that the missing numbers equal the declared losses.
   */
  write(requests: readonly WriteRequest[]): string[] {
    const gaps = this.#unmarked;
    this.#unmarked = new Set();
    gaps.forEach((pseudonym) => this.contents.putState(gapKey(pseudonym), ""));

    const refused = new Map<string, Counts>();
    const reasons = requests.map((each) => this.#writeRequest(each, refused, gaps));
    const dropped = this.losses.takeUndeclared();
    const lost = merged(dropped, refused);
    [...lost.keys()].sort().forEach((reason) => this.#declareDropped(reason, lost.get(reason)!));
    this.#uncommitted = { gaps, dropped, refused };
    return reasons;
  }

  #writeRequest(
    request: WriteRequest,
    refused: Map<string, Counts>,
    gaps: ReadonlySet<string>,
  ): string {
    let reason = "";
    const refuse = (why: string, type: Event["type"]): void => {
      const counts: Counts = refused.get(why) ?? new Map();
      add(counts, type);
      refused.set(why, counts);
    };
    for (let event of request.events) {
      if (event.type === "outcome" && this.#shed.has(event.decision)) {
        reason = DECISION_SHED;
        if (!event.updates_state) {
          refuse("full", "outcome");
          continue;
        }
        event = asObservation(event);
      }
      const fault = this.insert(event);
      if (fault !== null) {
        reason = fault;
        refuse("unencodable", event.type);
        movedBy([event]).forEach((user) => this.contents.putState(gapKey(user), ""));
      }
    }
    request.states.forEach((value, key) => {
      // There may have been another loss since the gap was cleared that this request closes.
      if (!(key.startsWith(GAP) && gaps.has(key.slice(GAP.length)))) {
        this.contents.putState(key, value);
      }
    });
    return reason;
  }

  /**
   * Numbers and adds one event, unless its id is already there; `reused` is a number that it takes.
   *
   * Returns why it cannot be stored, or null.
   */
  insert(event: Event, reused?: number): string | null {
    const { header } = this.contents;
    const seq = reused ?? header.seq + 1;
    let line: string;
    try {
      line = codec.encode({ ...event, seq });
    } catch (error) {
      if (error instanceof EventError || error instanceof TypeError) {
        return `expected an event that can be encoded, found ${shown(error.message)}`;
      }
      throw error;
    }
    const length = utf8Length(line);
    if (length > MAX_LINE) {
      return `expected an event of at most ${MAX_LINE} bytes, found ${length}`;
    }
    if (this.contents.byId(event.id) === undefined) {
      const decision = event.type === "outcome" ? event.decision : null;
      this.contents.put({ seq, id: event.id, type: event.type, decision, level: 0, line });
      this.contents.header = { ...this.contents.header, seq: Math.max(header.seq, seq) };
    }
    return null;
  }

  /** Remembers shed decisions, the last of many, so that no reward of them is promised. */
  rememberShed(decisions: readonly string[]): void {
    decisions.forEach((decision) => this.#shed.add(decision));
    for (const oldest of this.#shed) {
      if (this.#shed.size <= MAX_SHED) {
        break;
      }
      this.#shed.delete(oldest);
    }
  }

  /** Marks the gap that the removal of a row leaves, if any. */
  markGapOf(row: EventRow): void {
    const event = codec.decode(row.line);
    movedBy([event]).forEach((user) => this.contents.putState(gapKey(user), ""));
  }

  /**
   * Returns the event that declares a loss of `counts` events by type; `lostSeqs` are the numbers
   * of those that the collector may have nevertheless.
   */
  loss(reason: string, counts: Counts, lostSeqs: readonly number[] = []): Loss {
    const clock = this.boot.read();
    return {
      type: "loss",
      id: uuid7(clock.wall, this.#entropy),
      install: this.contents.header.install,
      seq: 1, // a placeholder: `insert` assigns the number
      clock,
      reason: [...reason].slice(0, MAX_NAME).join("") || "unknown",
      decisions: counts.get("decision") ?? 0,
      outcomes: counts.get("outcome") ?? 0,
      observations: (counts.get("observation") ?? 0) + (counts.get("state_reset") ?? 0),
      lost_seqs: lostSeqs.length > 0 ? lostSeqs : undefined,
    };
  }

  /** Declares events that were never numbered: each uses up a number. */
  #declareDropped(reason: string, counts: Counts): void {
    const earlier = this.#takeDeclaration(reason);
    const { header } = this.contents;
    // The number of the earlier declaration is missing from now on: it is one of those.
    const seq = header.seq + total(counts) - (earlier === null ? 0 : 1);
    this.contents.header = { ...header, seq };
    this.#declare(reason, counts, earlier);
  }

  /**
   * Declares events that were removed; `lastSeq` is the highest of their numbers.
   *
   * A declaration counts numbers below its own. Added to an earlier one it takes over the highest
   * number that it declares, and the earlier one's is missing in its place.
   */
  declareRemoved(reason: string, counts: Counts, lastSeq: number): void {
    const earlier = this.#takeDeclaration(reason);
    const reused = earlier === null ? undefined : Math.max(lastSeq, earlier.seq);
    this.#declare(reason, counts, earlier, reused);
  }

  #declare(reason: string, counts: Counts, earlier: Loss | null, reused?: number): void {
    if (earlier !== null) {
      add(counts, "decision", earlier.decisions);
      add(counts, "outcome", earlier.outcomes);
      add(counts, "observation", earlier.observations);
    }
    const loss = this.loss(reason, counts);
    this.insert(loss, reused);
    this.#declarationIds().set(loss.reason, loss.id);
  }

  /**
   * Removes and returns the unsent declaration of a reason, if there is one.
   *
   * A small outbox that is full for weeks would otherwise hold nothing but declarations.
   */
  #takeDeclaration(reason: string): Loss | null {
    const row = this.contents.byId(this.#declarationIds().get(reason) ?? "");
    if (row === undefined || row.seq <= this.contents.header.sentSeq) {
      return null;
    }
    this.contents.remove(row.seq);
    return codec.decode(row.line) as Loss;
  }

  /** Returns by reason the id of the declaration to which losses are added next. */
  #declarationIds(): Map<string, string> {
    if (this.#declarations === null) {
      this.#declarations = new Map();
      for (const row of this.contents.rows()) {
        const loss = row.type === "loss" ? (codec.decode(row.line) as Loss) : null;
        if (loss !== null && row.seq > this.contents.header.sentSeq && !loss.lost_seqs) {
          this.#declarations.set(loss.reason, loss.id);
        }
      }
    }
    return this.#declarations;
  }

  /** Returns the oldest events, at least one if any is stored. */
  oldest(maxEvents: number, maxBytes: number): EventRow[] {
    const batch: EventRow[] = [];
    let size = 0;
    for (const row of this.contents.rows().slice(0, maxEvents)) {
      size += utf8Length(row.line);
      if (batch.length > 0 && size > maxBytes) {
        break;
      }
      batch.push(row);
    }
    return batch;
  }

  /** Records that the events up to this number may have left the device. */
  markSent(seq: number): void {
    const { header } = this.contents;
    if (seq > header.sentSeq) {
      this.contents.header = { ...header, sentSeq: seq };
    }
  }

  /** Deletes the events with these ids; returns how many there were. */
  acknowledge(ids: Iterable<string>): number {
    let n = 0;
    for (const id of ids) {
      const row = this.contents.byId(id);
      if (row !== undefined) {
        this.contents.remove(row.seq);
        n += 1;
      }
    }
    return n;
  }

  /** Deletes an event that the collector will never store, if it is there; declares it lost. */
  reject(id: string, reason: string): boolean {
    const row = this.contents.byId(id);
    if (row === undefined) {
      return false;
    }
    this.markGapOf(row);
    this.contents.remove(row.seq);
    this.insert(this.loss(reason, new Map([[row.type, 1]]), [row.seq]));
    return true;
  }

  /** Deletes the events of these pseudonyms, and the states under these keys; returns how many. */
  forget(pseudonyms: ReadonlySet<string>, keys: Iterable<string>): number {
    const { sentSeq } = this.contents.header;
    const rows = this.contents.rows().filter(({ line }) => {
      const event = codec.decode(line);
      return event.type !== "loss" && pseudonyms.has(event.user);
    });
    rows.forEach((row) => this.contents.remove(row.seq));
    for (const key of keys) {
      this.contents.putState(key, null);
    }
    pseudonyms.forEach((pseudonym) => this.#unmarked.delete(pseudonym));
    for (let start = 0; start < rows.length; start += MAX_LOST_SEQS) {
      const part = rows.slice(start, start + MAX_LOST_SEQS);
      const counts: Counts = new Map();
      part.forEach((row) => add(counts, row.type));
      const sent = part.map((row) => row.seq).filter((seq) => seq <= sentSeq);
      this.insert(this.loss("forgotten", counts, sent));
    }
    this.contents.putState(UNSCRUBBED, "");
    return rows.length;
  }

  /** Deletes everything but changes of the catalog, and takes a new identity. */
  reset(): void {
    const catalog = [...this.contents.states()].filter(([key]) => key.startsWith(CATALOG));
    this.contents.clear();
    catalog.forEach(([key, value]) => this.contents.putState(key, value));
    this.contents.header = freshHeader(this.#entropy);
    this.contents.putState(UNSCRUBBED, "");
    this.#unmarked.clear();
    this.#declarations = null;
    this.losses.takeUndeclared();
    this.boot = new BootClock(this.#clock, this.#entropy);
  }
}

function merged(
  first: ReadonlyMap<string, Counts>,
  second: ReadonlyMap<string, Counts>,
): Map<string, Counts> {
  const all = new Map<string, Counts>();
  for (const part of [first, second]) {
    part.forEach((counts, reason) => {
      const sum: Counts = all.get(reason) ?? new Map();
      counts.forEach((n, type) => add(sum, type, n));
      all.set(reason, sum);
    });
  }
  return all;
}
