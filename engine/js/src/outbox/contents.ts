/**
 * What is stored, held in memory: an outbox is small, and so nothing that an engine asks of it
 * waits for storage.
 */

import type { EventRow, OutboxHeader, StoredChanges, StoredContents } from "./storage.js";

/**
 * Prefix of what the app changed of the catalog. It is the device's, not an identity's, so that it
 * outlives the identity, takes no room of events, and is never shed.
 */
export const CATALOG = "catalog/";

/** Bytes that a row takes beside its line, about. */
const ROW_BYTES = 200;

/** Bytes that a state takes beside its key and value, about. */
const STATE_BYTES = 64;

/**
 * The rows, states and header of an outbox.
 *
 * Changes are made at once and collected until `changes` are committed; then `confirm` keeps them,
 * or `rollBack` undoes them.
 */
export class OutboxContents {
  header: OutboxHeader;
  readonly #rows = new Map<number, EventRow>();
  readonly #seqs = new Map<string, number>(); // by id
  readonly #states = new Map<string, string>();
  #sorted: EventRow[] | null = null;
  #usedBytes = 0;
  #pending = new Pending();
  #committedHeader: OutboxHeader | null;
  readonly #fresh: OutboxHeader;

  /** `fresh` is the header of an outbox that is stored nowhere yet. */
  constructor(stored: StoredContents, fresh: OutboxHeader) {
    this.header = stored.header ?? fresh;
    this.#committedHeader = stored.header;
    this.#fresh = fresh;
    stored.rows.forEach((row) => this.#set(row));
    stored.states.forEach((value, key) => this.#setState(key, value));
  }

  /** The number of rows. */
  get length(): number {
    return this.#rows.size;
  }

  /** The bytes of all rows and states, about. */
  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Returns the rows in the order of their numbers. */
  rows(): readonly EventRow[] {
    this.#sorted ??= [...this.#rows.values()].sort((a, b) => a.seq - b.seq);
    return this.#sorted;
  }

  /** Returns the row of an event's id. */
  byId(id: string): EventRow | undefined {
    const seq = this.#seqs.get(id);
    return seq === undefined ? undefined : this.#rows.get(seq);
  }

  /** Returns the value of a key. */
  state(key: string): string | undefined {
    return this.#states.get(key);
  }

  /** Returns all states by key, those written longest ago first. */
  states(): ReadonlyMap<string, string> {
    return this.#states;
  }

  /** Adds a row, or replaces that of the same number. */
  put(row: EventRow): void {
    this.#keep(row.seq);
    this.#delete(row.seq);
    this.#set(row);
    this.#pending.put.set(row.seq, row);
    this.#pending.remove.delete(row.seq);
  }

  /** Deletes the row of a number, if there is one. */
  remove(seq: number): void {
    if (this.#rows.has(seq)) {
      this.#keep(seq);
      this.#delete(seq);
      this.#pending.put.delete(seq);
      this.#pending.remove.add(seq);
    }
  }

  /** Puts the value of a key, or deletes it where that is null. */
  putState(key: string, value: string | null): void {
    const before = this.#states.get(key) ?? null;
    this.#pending.undo.push(() => this.#setState(key, before));
    this.#setState(key, value);
    this.#pending.states.set(key, value);
  }

  /** Deletes all rows and states. */
  clear(): void {
    [...this.#rows.keys()].forEach((seq) => this.remove(seq));
    [...this.#states.keys()].forEach((key) => this.putState(key, null));
    this.#pending.clear = true;
    this.#pending.remove.clear();
    this.#pending.states.clear();
  }

  /** Returns what has changed since the last commit; null if nothing has. */
  changes(durable: boolean): StoredChanges | null {
    const { clear, remove, put, states } = this.#pending;
    const hasChanged = clear || remove.size + put.size + states.size > 0;
    if (!hasChanged && this.header === this.#committedHeader) {
      return null;
    }
    const rows = { remove: [...remove], put: [...put.values()] };
    return { header: this.header, clear, ...rows, states: new Map(states), durable };
  }

  /** Keeps the changes: they are committed. */
  confirm(): void {
    this.#pending = new Pending();
    this.#committedHeader = this.header;
  }

  /** Undoes the changes since the last commit. */
  rollBack(): void {
    this.#pending.undo.reverse().forEach((undo) => undo());
    this.header = this.#committedHeader ?? this.#fresh;
    this.#pending = new Pending();
  }

  #keep(seq: number): void {
    const before = this.#rows.get(seq);
    this.#pending.undo.push(() => {
      this.#delete(seq);
      if (before !== undefined) {
        this.#set(before);
      }
    });
  }

  #set(row: EventRow): void {
    const isLast = this.#sorted !== null && row.seq > (this.#sorted.at(-1)?.seq ?? 0);
    if (isLast) {
      this.#sorted!.push(row);
    } else {
      this.#sorted = null;
    }
    this.#rows.set(row.seq, row);
    this.#seqs.set(row.id, row.seq);
    this.#usedBytes += row.line.length + ROW_BYTES;
  }

  #delete(seq: number): void {
    const row = this.#rows.get(seq);
    if (row !== undefined) {
      this.#sorted = null;
      this.#rows.delete(seq);
      this.#seqs.delete(row.id);
      this.#usedBytes -= row.line.length + ROW_BYTES;
    }
  }

  #setState(key: string, value: string | null): void {
    const before = this.#states.get(key);
    this.#usedBytes -= before === undefined ? 0 : stateBytes(key, before);
    this.#states.delete(key); // so that a value that is put again becomes the last one
    if (value !== null) {
      this.#states.set(key, value);
      this.#usedBytes += stateBytes(key, value);
    }
  }
}

/** Returns the bytes that a state takes of an outbox's limit, about. */
export function stateBytes(key: string, value: string): number {
  return key.startsWith(CATALOG) ? 0 : key.length + value.length + STATE_BYTES;
}

/** Changes since the last commit, and how to undo them. */
class Pending {
  clear = false;
  readonly remove = new Set<number>();
  readonly put = new Map<number, EventRow>();
  readonly states = new Map<string, string | null>();
  readonly undo: (() => void)[] = [];
}
