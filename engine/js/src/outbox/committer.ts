/** Uses the storage for one caller after the other, and loads what other tabs have changed. */

import type { EventStore } from "./eventStore.js";
import { ConflictError, type OutboxStorage } from "./storage.js";
import type { WriteQueue } from "./writeQueue.js";

/** Commits changes of the rows and states. */
export class Committer {
  /** Called when what is stored was replaced: by another tab, or by a new identity. */
  onReload: () => void = () => {};

  readonly #storage: OutboxStorage;
  readonly #store: EventStore;
  readonly #queue: WriteQueue;
  #turn: Promise<unknown> = Promise.resolve();
  #isStale = false;

  constructor(storage: OutboxStorage, store: EventStore, queue: WriteQueue) {
    this.#storage = storage;
    this.#store = store;
    this.#queue = queue;
    storage.onForeignChange = () => (this.#isStale = true);
  }

  /** Runs an action that uses the storage, after those before it. */
  exclusive<T>(action: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(action);
    this.#turn = result.catch(() => {});
    return result;
  }

  /**
   * Makes and commits a change, within `exclusive`.
   *
   * `change` returns whether it must be durable; it is made again where another tab has committed
   * something meanwhile. Throws `StorageError`, and nothing is changed then.
   */
  async commit(change: () => boolean): Promise<void> {
    for (;;) {
      try {
        const durable = change();
        const changes = this.#store.contents.changes(durable);
        if (changes !== null) {
          await this.#storage.commit(changes);
        }
        this.#store.confirm();
        return;
      } catch (error) {
        this.#store.rollBack();
        if (!(error instanceof ConflictError)) {
          throw error;
        }
        await this.#reload();
      }
    }
  }

  /** Loads what other tabs have stored, if they have. */
  async refresh(): Promise<void> {
    if (this.#isStale) {
      await this.exclusive(() => this.#reload());
    }
  }

  /** Says that what the queue was made from is gone. */
  replaced(): void {
    this.#queue.repeat(() => this.onReload());
  }

  async #reload(): Promise<void> {
    this.#isStale = false;
    const stored = await this.#storage.load();
    this.#queue.repeat(() => {
      this.#store.replace(stored);
      this.onReload();
    });
  }
}
