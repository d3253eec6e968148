/** The bounded queue of what is still to be written, and the states that it holds. */

import { StorageError } from "../errors.js";
import type { Event } from "../events/wire.js";
import type { WriteRequest } from "./eventStore.js";

/** The bound on queued events, and on queued requests. */
const MAX_QUEUED = 10_000;

/** The bound on requests of one commit. */
const MAX_GROUP = 256;

/**
 * Returns what to write, from the states as they are.
 *
 * It is called at once, and again where another tab has stored something meanwhile. It throws
 * `StorageError` where there is nothing to write any longer, as for a user who was forgotten.
 */
export type Write = () => WriteRequest;

/** One request, and who waits for it. */
export interface QueuedWrite {
  readonly write: Write;
  request: WriteRequest;

  /** Null where nobody waits. */
  readonly settle: ((reason: string) => void) | null;
}

/** Requests in their order. */
export class WriteQueue {
  #writes: QueuedWrite[] = [];
  readonly #states = new Map<string, { value: string | null; owner: QueuedWrite }>();
  #events = 0;

  /** The number of requests. */
  get length(): number {
    return this.#writes.length;
  }

  /** The number of events in them. */
  get events(): number {
    return this.#events;
  }

  /** Returns whether so many more events may be queued now. */
  hasRoom(events = 1): boolean {
    return this.#events + events <= MAX_QUEUED && this.#writes.length < MAX_QUEUED;
  }

  /** Returns the value that is to be written under a key: null deletes, undefined is none. */
  state(key: string): string | null | undefined {
    return this.#states.get(key)?.value;
  }

  /** Returns the keys with a prefix under which something is to be written, and what. */
  states(prefix: string): [string, string | null][] {
    const entries = [...this.#states].filter(([key]) => key.startsWith(prefix));
    return entries.map(([key, { value }]) => [key, value]);
  }

  /** Adds a request. */
  add(write: QueuedWrite): void {
    this.#writes.push(write);
    this.#count(write);
  }

  /** Returns the requests to write next. */
  group(): readonly QueuedWrite[] {
    return this.#writes.slice(0, MAX_GROUP);
  }

  /** Takes requests off the queue, and lets go of their states unless later ones replaced them. */
  remove(writes: readonly QueuedWrite[]): void {
    const removed = new Set(writes);
    this.#writes = this.#writes.filter((each) => !removed.has(each));
    for (const each of writes) {
      this.#events -= each.request.events.length;
      for (const key of each.request.states.keys()) {
        if (this.#states.get(key)?.owner === each) {
          this.#states.delete(key);
        }
      }
    }
  }

  /** Takes the requests off the queue that concern these users, and returns them. */
  take(pseudonyms: ReadonlySet<string>, keys: ReadonlySet<string>): readonly QueuedWrite[] {
    const taken = this.#writes.filter(({ request }) => concerns(request, pseudonyms, keys));
    this.remove(taken);
    return taken;
  }

  /** Makes all requests anew, after `reset` has dropped what they were made from. */
  repeat(reset: () => void): void {
    const writes = this.#writes;
    this.#writes = [];
    this.#states.clear();
    this.#events = 0;
    reset();
    for (const each of writes) {
      try {
        each.request = each.write();
        this.add(each);
      } catch (error) {
        each.settle?.(error instanceof StorageError ? error.message : String(error));
      }
    }
  }

  #count(write: QueuedWrite): void {
    this.#events += write.request.events.length;
    write.request.states.forEach((value, key) => this.#states.set(key, { value, owner: write }));
  }
}

function concerns(
  { events, states }: WriteRequest,
  pseudonyms: ReadonlySet<string>,
  keys: ReadonlySet<string>,
): boolean {
  if (events.length === 0) {
    return [...states.keys()].some((key) => keys.has(key));
  }
  return events.some((event) => isOf(event, pseudonyms));
}

function isOf(event: Event, pseudonyms: ReadonlySet<string>): boolean {
  return event.type !== "loss" && pseudonyms.has(event.user);
}
