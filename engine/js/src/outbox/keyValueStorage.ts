/** An outbox in a store of texts by key, such as AsyncStorage of React Native. */

import { StorageError } from "../errors.js";
import { MemoryStorage } from "./memoryStorage.js";
import type { OutboxStorage, StoredChanges, StoredContents } from "./storage.js";

/** After how many commits the contents are written anew, and the commits deleted. */
const MAX_COMMITS = 256;

const PREFIX = "commit-";
const DIGITS = 12;
const KEY = /^commit-[0-9]{12}$/;

/** A store of texts by key, such as `createAsyncStorage("shop")` of AsyncStorage 3. */
export interface KeyValueStore {
  getAllKeys(): Promise<readonly string[]>;
  getMany(keys: string[]): Promise<Readonly<Record<string, string | null>>>;

  /** Resolves when the whole value is stored, and rejects when nothing of it is. */
  setItem(key: string, value: string): Promise<void>;
  removeMany(keys: string[]): Promise<void>;
}

/**
 * Stores each commit as one value, since no more is promised to be written as a whole.
 *
 * Receipts are as durable as the store's `setItem`. One engine at a time may use a store.
 */
export class KeyValueStorage implements OutboxStorage {
  readonly kind = "key-value";
  readonly fault = "";
  onForeignChange = (): void => {};
  readonly #store: KeyValueStore;
  #memory = new MemoryStorage();
  #keys: readonly string[] = [];
  #next = 0;

  /** The store should hold nothing else: texts of other keys are left alone, but listed. */
  constructor(store: KeyValueStore) {
    this.#store = store;
  }

  async load(): Promise<StoredContents> {
    const memory = new MemoryStorage();
    let keys: string[];
    try {
      keys = (await this.#store.getAllKeys()).filter((key) => KEY.test(key)).sort();
      const commits = await this.#store.getMany(keys);
      for (const key of keys) {
        await memory.commit(decode(commits[key] ?? ""));
      }
    } catch (error) {
      throw new StorageError(`key-value store: expected commits that can be read: ${error}`);
    }
    this.#memory = memory;
    this.#keys = keys;
    this.#next = Number(keys.at(-1)?.slice(PREFIX.length) ?? -1) + 1;
    return memory.load();
  }

  async commit(changes: StoredChanges): Promise<void> {
    await this.#write(changes);
    await this.#memory.commit(changes);
    if (this.#keys.length >= MAX_COMMITS) {
      await this.#compact().catch(() => undefined); // the next commit tries again
    }
  }

  async scrub(): Promise<void> {} // the bytes are the store's

  async exclusively<T>(action: () => Promise<T>): Promise<T | undefined> {
    return action();
  }

  async close(): Promise<void> {}

  /** Writes all contents as one commit, which clears, and deletes those before it. */
  async #compact(): Promise<void> {
    const before = [...this.#keys];
    const { header, rows, states } = await this.#memory.load();
    const all = { header: header!, clear: true, remove: [], put: rows, states, durable: true };
    await this.#write(all);
    await this.#store.removeMany(before);
    this.#keys = this.#keys.slice(before.length);
  }

  async #write(changes: StoredChanges): Promise<void> {
    const key = PREFIX + String(this.#next).padStart(DIGITS, "0");
    this.#next += 1; // a number that failed is not used again: something of it may be there
    try {
      await this.#store.setItem(key, JSON.stringify({ ...changes, states: [...changes.states] }));
    } catch (error) {
      throw new StorageError(`key-value store: expected a commit to be stored: ${error}`);
    }
    this.#keys = [...this.#keys, key];
  }
}

function decode(commit: string): StoredChanges {
  const { states, ...changes } = JSON.parse(commit);
  return { ...changes, states: new Map(states) };
}
