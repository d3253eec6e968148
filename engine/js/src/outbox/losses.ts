/** Events that were lost: counted, and kept until a stored event declares them. */

import type { Event } from "../events/wire.js";

/** Numbers of events by type. */
export type Counts = Map<Event["type"], number>;

/** Adds to the count of a type. */
export function add<Key>(counts: Map<Key, number>, key: Key, n = 1): void {
  counts.set(key, (counts.get(key) ?? 0) + n);
}

/** Returns the sum of counts. */
export function total(counts: Counts): number {
  let sum = 0;
  counts.forEach((n) => (sum += n));
  return sum;
}

/** Lost events by reason, and those of them that no stored event declares yet. */
export class Losses {
  readonly #byReason = new Map<string, number>();
  #undeclared = new Map<string, Counts>();

  /** Returns how many events were lost, by reason. */
  byReason(): Record<string, number> {
    return Object.fromEntries(this.#byReason);
  }

  /** Counts events whose loss has been declared. */
  count(reason: string, n: number): void {
    if (n > 0) {
      add(this.#byReason, reason, n);
    }
  }

  /** Counts events that were never numbered; the next write is to declare them. */
  drop(reason: string, events: readonly Event[]): void {
    const counts: Counts = this.#undeclared.get(reason) ?? new Map();
    events.forEach(({ type }) => add(counts, type));
    if (events.length > 0) {
      this.#undeclared.set(reason, counts);
    }
    this.count(reason, events.length);
  }

  /** Whether something is still to be declared. */
  get hasUndeclared(): boolean {
    return this.#undeclared.size > 0;
  }

  /** Returns what is still to be declared, by reason, and declares it unless that is put back. */
  takeUndeclared(): Map<string, Counts> {
    const taken = this.#undeclared;
    this.#undeclared = new Map();
    return taken;
  }

  /** Puts back what was taken: the write that was to declare it has failed. */
  putBack(taken: ReadonlyMap<string, Counts>): void {
    taken.forEach((counts, reason) => {
      const present: Counts = this.#undeclared.get(reason) ?? new Map();
      counts.forEach((n, type) => add(present, type, n));
      this.#undeclared.set(reason, present);
    });
  }
}
