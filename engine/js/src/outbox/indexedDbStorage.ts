/**
 * An outbox in IndexedDB: one transaction a commit, on disk when it resolves (`durability:
 * "strict"`).
 *
 * Tabs may share it. Each commit first compares the version of what is stored with that which this
 * tab has loaded, in the same transaction, which IndexedDB runs one after the other; so no tab
 * overwrites what it has not seen, and no number is given twice. Tabs tell each other of commits,
 * and one of them uploads at a time.
 */

import { StorageError } from "../errors.js";
import { type BrowserObjects, openDatabase } from "../runtime/indexedDb.js";
import {
  ConflictError,
  type EventRow,
  type OutboxHeader,
  type OutboxStorage,
  type StoredChanges,
  StorageFullError,
  type StoredContents,
} from "./storage.js";

const HEADER = "header";
const EVENTS = "events";
const STATES = "states";
const STORES = [HEADER, EVENTS, STATES];

type VersionedHeader = OutboxHeader & { readonly version: number };

/** What is compared to find that another tab has stored something. */
interface Stamp {
  readonly version: number;

  /** A user may clear the storage; another tab then counts versions from 1 again. */
  readonly install: string;
}

const NOTHING: Stamp = { version: 0, install: "" };

/** The outbox of one name in this origin's IndexedDB. */
export class IndexedDbStorage implements OutboxStorage {
  readonly kind = "IndexedDB";
  readonly fault = "";
  onForeignChange = (): void => {};
  readonly #name: string;
  readonly #factory: IDBFactory;
  readonly #locks: LockManager | undefined;
  readonly #channel: BroadcastChannel | null;
  #database: IDBDatabase | null = null;
  #stored = NOTHING;

  private constructor(name: string, options: BrowserObjects) {
    this.#name = `sanderling:${name}`;
    this.#factory = options.factory ?? indexedDB;
    this.#locks = options.locks ?? globalThis.navigator?.locks;
    const hasChannel = typeof BroadcastChannel !== "undefined";
    this.#channel = hasChannel ? new BroadcastChannel(this.#name) : null;
    if (this.#channel !== null) {
      (this.#channel as { unref?: () => void }).unref?.(); // in Node it would keep a process alive
      this.#channel.onmessage = ({ data }) => {
        if (data !== this.#stored.version) {
          this.onForeignChange();
        }
      };
    }
  }

  /** Opens the storage of a name; throws `StorageError` where the browser has or allows none. */
  static async open(
    name: string,
    options: BrowserObjects = {},
  ): Promise<IndexedDbStorage> {
    if (options.factory === undefined && typeof indexedDB === "undefined") {
      throw new StorageError(
        "expected a browser with IndexedDB, found none; in Node give a folder:" +
          " state: await FileStorage.open(\"state/\") of @sanderling/engine/node",
      );
    }
    const storage = new IndexedDbStorage(name, options);
    try {
      await storage.#open();
    } catch (error) {
      storage.#channel?.close();
      throw error;
    }
    return storage;
  }

  async load(): Promise<StoredContents> {
    const transaction = await this.#transaction("readonly");
    const all = STORES.map((store) => transaction.objectStore(store).getAll());
    const keys = transaction.objectStore(STATES).getAllKeys();
    await completed(transaction);

    const [headers, rows, values] = all.map((request) => request.result);
    const stored = (headers as VersionedHeader[])[0];
    this.#stored = stored ?? NOTHING;
    const states = keys.result.map((key, i): [string, string] => [String(key), values![i]]);
    return {
      header: stored === undefined ? null : withoutVersion(stored),
      rows: rows as EventRow[],
      states: new Map(states),
      wasDamaged: false, // the browser checks its own files, and deletes what is damaged
    };
  }

  async commit(changes: StoredChanges): Promise<void> {
    const durability = changes.durable ? "strict" : "relaxed";
    const transaction = await this.#transaction("readwrite", { durability });
    const done = completed(transaction);
    let isConflict = false;
    const headers = transaction.objectStore(HEADER);
    const next = { ...changes.header, version: this.#stored.version + 1 };
    const current: IDBRequest<VersionedHeader | undefined> = headers.get(0);
    current.onsuccess = () => {
      const { version, install } = current.result ?? NOTHING;
      if (version !== this.#stored.version || install !== this.#stored.install) {
        isConflict = true;
        transaction.abort();
        return;
      }
      write(transaction, changes);
      headers.put(next, 0);
      transaction.commit?.(); // without waiting for answers, in case the page ends now
    };
    try {
      await done;
    } catch (error) {
      throw isConflict ? new ConflictError(`${this.#name}: another tab has stored more`) : error;
    }
    this.#stored = next;
    this.#channel?.postMessage(next.version);
  }

  async scrub(): Promise<void> {
    // A page cannot reach the browser's files; the browser rewrites them in its own time.
  }

  async exclusively<T>(action: () => Promise<T>): Promise<T | undefined> {
    if (this.#locks === undefined) {
      return action(); // the ids of events make it harmless that two tabs send the same ones
    }
    const granted = await this.#locks.request(this.#name, { ifAvailable: true }, async (lock) =>
      lock === null ? undefined : { value: await action() },
    );
    return granted?.value;
  }

  async close(): Promise<void> {
    this.#channel?.close();
    this.#database?.close();
    this.#database = null;
  }

  async #transaction(
    mode: IDBTransactionMode,
    options?: IDBTransactionOptions,
  ): Promise<IDBTransaction> {
    try {
      return (await this.#open()).transaction(STORES, mode, options);
    } catch {
      this.#database = null; // it was closed, as happens when the browser is short of memory
      return (await this.#open()).transaction(STORES, mode, options);
    }
  }

  /** Opens the database, again after the browser has closed it, such as when its user clears it. */
  async #open(): Promise<IDBDatabase> {
    this.#database ??= await openDatabase(this.#factory, this.#name, {
      create: createStores,
      onClose: () => (this.#database = null),
    });
    return this.#database;
  }
}

function createStores(database: IDBDatabase): void {
  database.createObjectStore(HEADER);
  database.createObjectStore(EVENTS, { keyPath: "seq" });
  database.createObjectStore(STATES);
}

function write(transaction: IDBTransaction, changes: StoredChanges): void {
  const events = transaction.objectStore(EVENTS);
  const states = transaction.objectStore(STATES);
  if (changes.clear) {
    events.clear();
    states.clear();
  }
  changes.remove.forEach((seq) => events.delete(seq));
  changes.put.forEach((row) => events.put(row));
  changes.states.forEach((value, key) => {
    if (value === null) {
      states.delete(key);
    } else {
      states.put(value, key);
    }
  });
}

function withoutVersion({ install, secret, seq, sentSeq }: VersionedHeader): OutboxHeader {
  return { install, secret, seq, sentSeq };
}

/** Resolves when a transaction is complete; rejects with a `StorageError` when it is aborted. */
function completed(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => {
      const error = transaction.error;
      const isFull = error?.name === "QuotaExceededError";
      const kind = isFull ? StorageFullError : StorageError;
      reject(new kind(isFull ? "this page's storage is full" : `IndexedDB: ${String(error)}`));
    };
  });
}
