/** What an outbox is stored in: IndexedDB, a file, memory, or something of the app's own. */

import { StorageError } from "../errors.js";
import type { Event } from "../events/wire.js";

/** The one record about the whole outbox. */
export interface OutboxHeader {
  /** The install id, 32 hex digits. */
  readonly install: string;

  /** 64 hex digits that never leave the device. */
  readonly secret: string;

  /** The last sequence number given to an event of this install. */
  readonly seq: number;

  /** The last sequence number that may have left the device. */
  readonly sentSeq: number;
}

/** One event that waits to be sent. */
export interface EventRow {
  readonly seq: number;
  readonly id: string;
  readonly type: Event["type"];

  /** The decision of an outcome, null for other events. */
  readonly decision: string | null;

  /** How many passes of shedding the row has survived. */
  readonly level: number;

  /** The encoded event. */
  readonly line: string;
}

/** All that is stored. */
export interface StoredContents {
  /** Null where nothing has been stored yet. */
  readonly header: OutboxHeader | null;

  readonly rows: readonly EventRow[];

  /** User states and other small values, by key. */
  readonly states: ReadonlyMap<string, string>;

  /** Whether something was stored, but is damaged and has been moved aside. */
  readonly wasDamaged: boolean;
}

/** What one commit changes, all of it or nothing. */
export interface StoredChanges {
  readonly header: OutboxHeader;

  /** Whether all rows and states are deleted before the others are put. */
  readonly clear: boolean;

  /** The numbers of rows to delete. */
  readonly remove: readonly number[];

  readonly put: readonly EventRow[];

  /** Values to put, by key; null deletes. */
  readonly states: ReadonlyMap<string, string | null>;

  /** Whether `commit` resolves only when a power cut cannot undo it. */
  readonly durable: boolean;
}

/** Another engine, such as one in another tab, has changed what is stored: load it again. */
export class ConflictError extends StorageError {}

/** There is no room for a commit. */
export class StorageFullError extends StorageError {}

/** Where an outbox is stored. One `load` or `commit` runs at a time. */
export interface OutboxStorage {
  /** What it is, for people: "IndexedDB", "file" or "memory". */
  readonly kind: string;

  /** Why rewards are not durable here; empty where they are. */
  readonly fault: string;

  /** Set by the outbox; called when another engine has changed what is stored. */
  onForeignChange: () => void;

  /**
   * Returns all that is stored.
   *
   * Throws `StorageError` where it cannot be read, or belongs to another engine of this process.
   */
  load(): Promise<StoredContents>;

  /**
   * Stores changes atomically.
   *
   * Throws `ConflictError` where another engine has committed since `load`, `StorageFullError`
   * where there is no room, `StorageError` for any other failure. Nothing is changed then.
   */
  commit(changes: StoredChanges): Promise<void>;

  /** Overwrites the bytes of what was deleted, where that is possible; throws `StorageError`. */
  scrub(): Promise<void>;

  /** Runs an action unless another engine on the same storage runs one; undefined in that case. */
  exclusively<T>(action: () => Promise<T>): Promise<T | undefined>;

  /** Lets go of the storage. */
  close(): Promise<void>;
}
