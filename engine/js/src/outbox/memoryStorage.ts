/** An outbox in memory: for tests, and where a browser has no storage. */

import type {
  EventRow,
  OutboxHeader,
  OutboxStorage,
  StoredChanges,
  StoredContents,
} from "./storage.js";

/** Holds everything until the page or the process ends. */
export class MemoryStorage implements OutboxStorage {
  readonly kind = "memory";
  readonly fault: string;
  onForeignChange = (): void => {};
  #header: OutboxHeader | null = null;
  readonly #rows = new Map<number, EventRow>();
  readonly #states = new Map<string, string>();

  constructor(fault = "expected a `state` to store rewards in, found none: they are in memory") {
    this.fault = fault;
  }

  async load(): Promise<StoredContents> {
    return {
      header: this.#header,
      rows: [...this.#rows.values()],
      states: new Map(this.#states),
      wasDamaged: false,
    };
  }

  async commit(changes: StoredChanges): Promise<void> {
    applyChanges(changes, this.#rows, this.#states);
    this.#header = changes.header;
  }

  async scrub(): Promise<void> {}

  async exclusively<T>(action: () => Promise<T>): Promise<T | undefined> {
    return action();
  }

  async close(): Promise<void> {}
}

/** Applies changes to rows and states in memory. */
export function applyChanges(
  changes: Pick<StoredChanges, "clear" | "remove" | "put" | "states">,
  rows: Map<number, EventRow>,
  states: Map<string, string>,
): void {
  if (changes.clear) {
    rows.clear();
    states.clear();
  }
  changes.remove.forEach((seq) => rows.delete(seq));
  changes.put.forEach((row) => rows.set(row.seq, row));
  changes.states.forEach((value, key) => {
    if (value === null) {
      states.delete(key);
    } else {
      states.set(key, value);
    }
  });
}
