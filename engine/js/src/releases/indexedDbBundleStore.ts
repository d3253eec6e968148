/** Bundles in IndexedDB, in a database of their own beside that of the outbox. */

import { StorageError } from "../errors.js";
import { StorageFullError } from "../outbox/storage.js";
import { type BrowserObjects, openDatabase } from "../runtime/indexedDb.js";
import type { BundleStore } from "./bundleStore.js";

const STORE = "values";

/** The bundles of one name in this origin's IndexedDB. */
export class IndexedDbBundleStore implements BundleStore {
  readonly name: string;
  readonly #factory: IDBFactory | undefined;
  readonly #locks: LockManager | undefined;
  #database: Promise<IDBDatabase> | null = null;

  constructor(name: string, objects: BrowserObjects = {}) {
    this.name = `sanderling:${name}:bundles`;
    this.#factory = objects.factory ?? globalThis.indexedDB;
    this.#locks = objects.locks ?? globalThis.navigator?.locks;
  }

  async read(key: string): Promise<Uint8Array | null> {
    const value = await this.#run("readonly", (values) => values.get(key));
    return (value as Uint8Array | undefined) ?? null;
  }

  async write(key: string, value: Uint8Array): Promise<void> {
    await this.#run("readwrite", (values) => values.put(value, key));
  }

  async remove(key: string): Promise<void> {
    await this.#run("readwrite", (values) => values.delete(key));
  }

  async keys(): Promise<string[]> {
    return (await this.#run("readonly", (values) => values.getAllKeys())).map(String);
  }

  async freeBytes(): Promise<number | null> {
    try {
      const { quota, usage } = await navigator.storage.estimate();
      return quota === undefined ? null : quota - (usage ?? 0);
    } catch {
      return null; // writing tells
    }
  }

  /** Where the browser has no locks, as outside of HTTPS, each tab has the store for itself. */
  async lock(): Promise<(() => Promise<void>) | null> {
    const locks = this.#locks;
    if (locks === undefined) {
      return async () => {};
    }
    return new Promise((resolve, reject) => {
      const held = locks.request(this.name, { ifAvailable: true }, (lock) => {
        if (lock === null) {
          resolve(null);
          return undefined;
        }
        // The lock is held until the promise that is returned here resolves.
        return new Promise<void>((release) => {
          resolve(async () => {
            release();
            await held;
          });
        });
      });
      held.catch(reject);
    });
  }

  async #run<T>(
    mode: IDBTransactionMode,
    request: (values: IDBObjectStore) => IDBRequest<T>,
  ): Promise<T> {
    try {
      const database = await this.#open();
      return await completed(database, mode, request);
    } catch (error) {
      const name = (error as DOMException).name;
      if (name === "InvalidStateError") {
        this.#database = null; // it was closed, as happens when the browser is short of memory
      }
      const isFull = name === "QuotaExceededError";
      throw new (isFull ? StorageFullError : StorageError)(
        `${this.name}: ${isFull ? "this page's storage is full" : String(error)}`,
      );
    }
  }

  async #open(): Promise<IDBDatabase> {
    if (this.#factory === undefined) {
      throw new StorageError("expected a browser with IndexedDB, found none");
    }
    if (this.#database === null) {
      const forget = (): void => {
        this.#database = null;
      };
      const create = (database: IDBDatabase) => database.createObjectStore(STORE);
      this.#database = openDatabase(this.#factory, this.name, { create, onClose: forget });
      this.#database.catch(forget);
    }
    return this.#database;
  }
}

/** Returns the result of a request once its transaction is on the disk. */
function completed<T>(
  database: IDBDatabase,
  mode: IDBTransactionMode,
  request: (values: IDBObjectStore) => IDBRequest<T>,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(STORE, mode, { durability: "strict" });
    const made = request(transaction.objectStore(STORE));
    transaction.oncomplete = () => resolve(made.result);
    transaction.onabort = () => reject(transaction.error ?? new Error("it was aborted"));
    transaction.onerror = () => reject(transaction.error ?? made.error);
  });
}
