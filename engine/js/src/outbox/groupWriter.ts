/** Writes the queue, many requests in one commit, and tries again what failed. */

import type { Committer } from "./committer.js";
import type { EventStore } from "./eventStore.js";
import { makeRoom, type Shed } from "./shedding.js";
import { StorageFullError } from "./storage.js";
import type { QueuedWrite, WriteQueue } from "./writeQueue.js";

/** The pause after a failed write, which doubles with each failure. */
const FIRST_RETRY_MS = 50;

/** The longest pause: storage that recovers is used again within seconds. */
const MAX_RETRY_MS = 2000;

/** The share of what is stored that may stay where the storage itself is full. */
const FULL_SHARE = 0.75;

const FULL = "the outbox is full";

/** Why an outbox that was closed stores nothing. */
export const CLOSED = "the outbox is closed";

/** Takes requests off a queue and stores them. */
export class GroupWriter {
  /** See `Outbox.marksAsSent`. */
  marksAsSent = false;

  /** Why the last write failed; empty after one that did not. */
  fault = "";

  /** Events that have been stored. */
  stored = 0;

  /** How often a write failed. */
  failedCommits = 0;

  /** The bound on the bytes of the outbox; less where the storage itself turned out to be full. */
  limit: number;

  readonly #committer: Committer;
  readonly #store: EventStore;
  readonly #queue: WriteQueue;
  #isRunning = false;
  #isClosed = false;
  #pauseMs = 0; // after the last failure
  #retry: ReturnType<typeof setTimeout> | null = null;

  constructor(committer: Committer, store: EventStore, queue: WriteQueue, limit: number) {
    this.#committer = committer;
    this.#store = store;
    this.#queue = queue;
    this.limit = limit;
  }

  /** Begins to write what is queued, unless that is under way or was put off. */
  start(): void {
    if (!this.#isRunning && !this.#isClosed && this.#retry === null && this.#queue.length > 0) {
      this.#isRunning = true;
      void this.#committer.exclusive(() => this.#writeGroup()).then((isWritten) => {
        this.#isRunning = false;
        if (!isWritten && !this.#isClosed) {
          this.#pauseMs = Math.min(MAX_RETRY_MS, 2 * this.#pauseMs || FIRST_RETRY_MS);
          this.#retry = setTimeout(() => {
            this.#retry = null;
            this.start();
          }, this.#pauseMs);
        }
        this.start();
      });
    }
  }

  /** Writes what is queued, once more where that failed, and refuses the rest. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#retry ?? undefined);
    await this.#committer.exclusive(async () => {
      while (this.#queue.length > 0 && (await this.#writeGroup())) {
        // there may be another group
      }
      for (let rest = this.#queue.group(); rest.length > 0; rest = this.#queue.group()) {
        this.#queue.remove(rest);
        rest.forEach((each) => each.settle?.(CLOSED));
      }
    });
  }

  /** Counts a failure of the storage. */
  noteFailure(error: unknown): void {
    this.failedCommits += 1;
    this.fault = error instanceof Error ? error.message : String(error);
  }

  /** Commits the head of the queue; returns false when that failed and is to be tried again. */
  async #writeGroup(): Promise<boolean> {
    try {
      if (this.#hasRoom() || (await this.#shed(this.limit))) {
        await this.#writeHead(true);
      } else {
        this.#refuse();
      }
    } catch (error) {
      this.noteFailure(error);
      return false;
    }
    this.#pauseMs = 0;
    this.fault = "";
    return true;
  }

  #hasRoom(): boolean {
    return this.#store.contents.usedBytes <= this.limit;
  }

  async #writeHead(mayShed: boolean): Promise<void> {
    let group: readonly QueuedWrite[] = [];
    let reasons: readonly string[] = [];
    try {
      await this.#committer.commit(() => {
        group = this.#queue.group();
        reasons = this.#store.write(group.map((each) => each.request));
        const durable = this.marksAsSent || group.some((each) => each.settle !== null);
        if (this.marksAsSent) {
          this.#store.markSent(this.#store.contents.header.seq);
        }
        return durable;
      });
    } catch (error) {
      if (!(error instanceof StorageFullError && mayShed)) {
        throw error;
      }
      // The browser or the disk has less room than the limit: make do with less from now on.
      this.limit = Math.floor(FULL_SHARE * this.#store.contents.usedBytes);
      await this.#shed(this.limit);
      return this.#writeHead(false);
    }
    this.#queue.remove(group);
    group.forEach((each, i) => {
      this.stored += reasons[i] === "" ? each.request.events.length : 0;
      each.settle?.(reasons[i]!);
    });
  }

  /** Sheds decisions; returns whether there is room then. */
  async #shed(limit: number): Promise<boolean> {
    let shed: Shed | null = null;
    await this.#committer.commit(() => {
      shed = makeRoom(this.#store, limit);
      return false;
    });
    const { counts, decisions } = shed!;
    counts.forEach((n) => this.#store.losses.count("full", n));
    this.#store.rememberShed(decisions);
    return this.#hasRoom();
  }

  /** Refuses the head of the queue, because there is no room for it. */
  #refuse(): void {
    const group = this.#queue.group();
    this.#queue.remove(group);
    for (const { request, settle } of group) {
      if (settle === null) {
        this.#store.drop("full", request.events);
      } else {
        this.#store.noteGaps(request.events); // its caller hears of it: no silent loss
        settle(FULL);
      }
    }
  }
}
