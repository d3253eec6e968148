/**
 * How many explored slots each user was shown today: a bundle can cap exploration per user and day.
 *
 * A day is a UTC day of the device's wall clock; a clock that jumps to another day starts a new
 * budget.
 */

export const DAY_MS = 86_400_000;

const PREFIX = "explored:";

/** The counts of all users of an engine; `load` returns what is stored under a key. */
export class ExplorationBudget {
  readonly #load: (key: string) => string | undefined;

  constructor(load: (key: string) => string | undefined) {
    this.#load = load;
  }

  /** Returns the number of explored slots that a pseudonym was shown today. */
  spent(pseudonym: string, nowMs: number): number {
    const [day, slots] = (this.#load(PREFIX + pseudonym) ?? "").split(" ").map(Number);
    return day === Math.floor(nowMs / DAY_MS) && Number.isInteger(slots) ? slots! : 0;
  }

  /** Counts explored slots that are shown now; returns what to store, by key. */
  spend(pseudonym: string, nowMs: number, slots: number): [string, string] {
    const sum = this.spent(pseudonym, nowMs) + slots;
    return [PREFIX + pseudonym, `${Math.floor(nowMs / DAY_MS)} ${sum}`];
  }

  /** Returns the key under which a pseudonym's count may be stored. */
  key(pseudonym: string): string {
    return PREFIX + pseudonym;
  }
}
