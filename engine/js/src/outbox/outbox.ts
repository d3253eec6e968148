/** The outbox: events wait here, durable, bounded and counted, until the collector has them. */

import { StorageError } from "../errors.js";
import type { BootClock } from "../events/bootClock.js";
import type { Event } from "../events/wire.js";
import type { Clock, Entropy } from "../runtime/clock.js";
import { utf8Length } from "../runtime/text.js";
import { Committer } from "./committer.js";
import { EventStore, gapKey, UNSCRUBBED } from "./eventStore.js";
import { CLOSED, GroupWriter } from "./groupWriter.js";
import type { EventRow, OutboxStorage } from "./storage.js";
import { type Write, WriteQueue } from "./writeQueue.js";

/**
 * The share of the limit that a batch should take: what was sent once is never shed, and a batch
 * that is tried for weeks must leave room for other events.
 */
const MAX_BATCH_SHARE = 1 / 16;

/** An install id, 32 hex digits, and a secret of 64 that never leaves the device. */
export interface Identity {
  readonly install: string;
  readonly secret: string;
}

/** What is in the outbox, and what became of events since it was opened. */
export interface OutboxCounters {
  /** What it is stored in. */
  readonly storage: string;

  /** Events that are in memory now and not yet stored. */
  readonly queued: number;

  /** Events that are stored now. */
  readonly pending: number;

  /** Events that have been stored. */
  readonly stored: number;

  /** Events that were deleted because the collector has them. */
  readonly acknowledged: number;

  /** How often a write failed; its events stayed queued. */
  readonly failedCommits: number;

  /** Events that were lost, by reason. */
  readonly lost: Readonly<Record<string, number>>;
}

/** What an outbox needs. */
export interface OutboxOptions {
  /** The size of the outbox in bytes, about; beyond it whole decisions are shed. */
  readonly limitBytes: number;
  readonly clock: Clock;
  readonly entropy: Entropy;
}

/** The outbox of one storage. */
export class Outbox {
  readonly #storage: OutboxStorage;
  readonly #store: EventStore;
  readonly #queue = new WriteQueue();
  readonly #committer: Committer;
  readonly #writer: GroupWriter;
  #isClosed = false;
  #hasWarned = false; // that something was recorded after the end
  #acknowledged = 0;

  private constructor(storage: OutboxStorage, store: EventStore, limit: number) {
    this.#storage = storage;
    this.#store = store;
    this.#committer = new Committer(storage, store, this.#queue);
    this.#writer = new GroupWriter(this.#committer, store, this.#queue, limit);
  }

  /** Opens the outbox of a storage; throws `StorageError` where that cannot be read. */
  static async open(storage: OutboxStorage, options: OutboxOptions): Promise<Outbox> {
    const store = new EventStore(await storage.load(), options.clock, options.entropy);
    const outbox = new Outbox(storage, store, options.limitBytes);
    // Stored now: two tabs that open at the same time must not both keep an identity of their own.
    await outbox.#change(() => true).catch((error: unknown) => outbox.#writer.noteFailure(error));
    await outbox.scrubPending();
    return outbox;
  }

  /** Adds what is called when what is stored was replaced: by another tab, or a new identity. */
  onReload(listener: () => void): void {
    const before = this.#committer.onReload;
    this.#committer.onReload = () => {
      before();
      listener();
    };
  }

  /**
   * Whether events are marked as sent in the commit that stores them, as is done while uploads
   * succeed: they will be sent at once, and at the end of a page there is no time for another
   * commit.
   */
  set marksAsSent(isMarking: boolean) {
    this.#writer.marksAsSent = isMarking;
  }

  /** The identity of this install; another one after `resetIdentity`. */
  get identity(): Identity {
    const { install, secret } = this.#store.contents.header;
    return { install, secret };
  }

  /** The boot id and clocks of this run under the current identity. */
  get boot(): BootClock {
    return this.#store.boot;
  }

  /** Why what is stored is not durable, or not stored at all; empty where all is well. */
  get fault(): string {
    return this.#storage.fault || this.#writer.fault || (this.#isClosed ? CLOSED : "");
  }

  /** Whether a commit that resolves is on disk. */
  get isDurable(): boolean {
    return this.#storage.fault === "";
  }

  /** The bytes that a batch should have at most. */
  get maxBatchBytes(): number {
    return Math.floor(MAX_BATCH_SHARE * this.#writer.limit);
  }

  /** Takes what other tabs have stored meanwhile; calls of the engine begin with this. */
  async refresh(): Promise<void> {
    await this.#committer.refresh().catch((error: unknown) => this.#writer.noteFailure(error));
  }

  /** Queues events and the states that result from them; storage errors are counted. */
  put(write: Write): void {
    let request;
    try {
      request = write();
    } catch (error) {
      if (error instanceof StorageError) {
        return;
      }
      throw error;
    }
    if (request.events.length + request.states.size === 0) {
      return;
    }
    if (this.#isClosed) {
      this.#dropClosed(request.events);
      return;
    }
    if (!this.#queue.hasRoom(request.events.length)) {
      this.#store.drop("queue_full", request.events);
      return;
    }
    this.#queue.add({ write, request, settle: null });
    this.#writer.start();
  }

  /**
   * Queues events as `put` does; resolves when they are stored.
   *
   * Throws `StorageError` when they are not, and will not be.
   */
  async submit(write: Write): Promise<void> {
    const request = write();
    if (this.#isClosed || !this.#queue.hasRoom(request.events.length)) {
      this.#store.noteGaps(request.events); // the state in memory has moved already
      const reason = this.#isClosed ? CLOSED : "too much is queued already";
      throw new StorageError(`not stored: ${reason}`);
    }
    await new Promise<void>((resolve, reject) => {
      const settle = (reason: string): void =>
        reason === "" ? resolve() : reject(new StorageError(`not stored: ${reason}`));
      this.#queue.add({ write, request, settle });
      this.#writer.start();
    });
  }

  /**
   * Stores values by key without waiting for the queue; null deletes.
   *
   * `change` is called again where another tab has stored something meanwhile. Throws
   * `StorageError` where it fails, and nothing is changed then.
   */
  async store(change: () => ReadonlyMap<string, string | null>): Promise<void> {
    if (this.#isClosed) {
      throw new StorageError(`not stored: ${CLOSED}`);
    }
    await this.#change(() => {
      change().forEach((value, key) => this.#store.contents.putState(key, value));
      return true;
    });
  }

  /** Returns the last state put under a key, stored or not. */
  state(key: string): string | undefined {
    const queued = this.#queue.state(key);
    return queued === undefined ? this.#store.contents.state(key) : (queued ?? undefined);
  }

  /** Returns the states whose keys start with a prefix. */
  states(prefix: string): Map<string, string> {
    const found = new Map<string, string>();
    this.#store.contents.states().forEach((value, key) => {
      if (key.startsWith(prefix)) {
        found.set(key, value);
      }
    });
    for (const [key, value] of this.#queue.states(prefix)) {
      if (value === null) {
        found.delete(key);
      } else {
        found.set(key, value);
      }
    }
    return found;
  }

  /**
   * Clears a user's gap; returns whether there was one to close.
   *
   * A gap means that training cannot rebuild this user's state. After true the caller must put a
   * `StateReset`, which closes it.
   */
  clearGap(pseudonym: string): boolean {
    const hasGap =
      this.#store.hasGap(pseudonym) && this.#queue.state(gapKey(pseudonym)) !== null;
    if (!hasGap || this.#isClosed || !this.#queue.hasRoom()) {
      return false;
    }
    this.#store.clearGap(pseudonym);
    return true;
  }

  /** Returns stored events, oldest first, at least one if any, and marks them as sent. */
  async oldest(maxEvents: number, maxBytes: number): Promise<readonly EventRow[]> {
    let batch: readonly EventRow[] = [];
    await this.#change(() => {
      batch = this.#store.oldest(maxEvents, maxBytes);
      this.#store.markSent(batch.at(-1)?.seq ?? 0);
      return true;
    });
    return batch;
  }

  /** Returns at once the oldest events that are marked as sent, of at most so many bytes. */
  sentAlready(maxEvents: number, maxBytes: number): readonly EventRow[] {
    const { sentSeq } = this.#store.contents.header;
    const batch = this.#store.oldest(maxEvents, maxBytes);
    return batch.filter((row) => row.seq <= sentSeq && utf8Length(row.line) <= maxBytes);
  }

  /** Deletes the events that the collector has. */
  async acknowledge(ids: readonly string[]): Promise<void> {
    let n = 0;
    await this.#change(() => {
      n = this.#store.acknowledge(ids);
      return false; // where a power cut undoes it, they are sent again, and are duplicates
    });
    this.#acknowledged += n;
  }

  /** Deletes an event that the collector will never store, and declares it lost. */
  async reject(id: string, reason: string): Promise<void> {
    let wasThere = false;
    await this.#change(() => {
      wasThere = this.#store.reject(id, reason);
      return true;
    });
    this.#store.losses.count(reason, wasThere ? 1 : 0);
  }

  /** Deletes all events of these pseudonyms, and the states under these keys. */
  async forget(pseudonyms: ReadonlySet<string>, keys: ReadonlySet<string>): Promise<void> {
    await this.#committer.exclusive(async () => {
      for (const each of this.#queue.take(pseudonyms, keys)) {
        this.#store.losses.drop("forgotten", each.request.events);
        each.settle?.("the user was forgotten");
      }
      let n = 0;
      await this.#committer.commit(() => {
        n = this.#store.forget(pseudonyms, keys);
        return true;
      });
      this.#store.losses.count("forgotten", n);
      await this.#scrub();
    });
  }

  /** Deletes everything and takes a new identity. */
  resetIdentity(): Promise<void> {
    return this.#committer.exclusive(() => this.#reset());
  }

  /** Takes a new identity if nothing is left to send. */
  rotateIdentity(): Promise<void> {
    return this.#committer.exclusive(async () => {
      if (this.#store.losses.hasUndeclared && this.#queue.length === 0) {
        await this.#committer.commit(() => {
          this.#store.write([]); // losses are declared under the identity that has them
          return true;
        });
      }
      if (this.#queue.length === 0 && this.#store.contents.length === 0) {
        await this.#reset();
      }
    });
  }

  /** Overwrites deleted bytes that could not be overwritten before; ignores storage errors. */
  async scrubPending(): Promise<void> {
    if (this.#store.contents.state(UNSCRUBBED) !== undefined) {
      await this.#committer.exclusive(() => this.#scrub()).catch(() => {});
    }
  }

  /** Runs an action unless another tab on the same storage runs one; undefined in that case. */
  exclusively<T>(action: () => Promise<T>): Promise<T | undefined> {
    return this.#storage.exclusively(action);
  }

  /** Returns what is waiting, and what became of the rest. */
  counters(): OutboxCounters {
    return {
      storage: this.#storage.kind,
      queued: this.#queue.events,
      pending: this.#store.contents.length,
      stored: this.#writer.stored,
      acknowledged: this.#acknowledged,
      failedCommits: this.#writer.failedCommits,
      lost: this.#store.losses.byReason(),
    };
  }

  /** Stores what is queued, as far as that is possible at once, and lets go of the storage. */
  async close(): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true;
      await this.#writer.close();
      await this.#committer.exclusive(() => this.#storage.close());
    }
  }

  /** Drops events of an engine that is used after its end, and warns of that once. */
  #dropClosed(events: readonly Event[]): void {
    if (events.length > 0 && !this.#hasWarned) {
      this.#hasWarned = true;
      console.warn(`sanderling: not stored: ${CLOSED}; open another engine`);
    }
    this.#store.drop("closed", events);
  }

  #change(change: () => boolean): Promise<void> {
    return this.#committer.exclusive(() => this.#committer.commit(change));
  }

  async #reset(): Promise<void> {
    await this.#committer.commit(() => {
      this.#store.reset();
      return true;
    });
    this.#committer.replaced();
    await this.#scrub().catch(() => {}); // the mark stays, and `scrubPending` tries again
  }

  async #scrub(): Promise<void> {
    await this.#storage.scrub();
    await this.#committer.commit(() => {
      this.#store.contents.putState(UNSCRUBBED, null);
      return false;
    });
  }
}
