/** A map of the entries that were used last. */
export class LruCache<Key, Value> {
  readonly #entries = new Map<Key, Value>();

  /** Makes a cache of at most so many entries. */
  constructor(readonly capacity: number) {}

  /** Returns the value of a key and marks it as used, undefined without it. */
  get(key: Key): Value | undefined {
    const value = this.#entries.get(key);
    if (value !== undefined) {
      // A `Map` keeps the order of insertion: the first entry is the one that was used longest ago.
      this.#entries.delete(key);
      this.#entries.set(key, value);
    }
    return value;
  }

  /** Returns the value of a key as `get` does, without marking it as used. */
  peek(key: Key): Value | undefined {
    return this.#entries.get(key);
  }

  /** Stores a value, and drops the one that was used longest ago if there are too many. */
  set(key: Key, value: Value): void {
    this.#entries.delete(key);
    this.#entries.set(key, value);
    if (this.#entries.size > this.capacity) {
      this.#entries.delete(this.#entries.keys().next().value as Key);
    }
  }

  /** Returns the value of a key, made and stored where it is missing. */
  getOrMake(key: Key, make: () => Value): Value {
    const known = this.get(key);
    if (known !== undefined) {
      return known;
    }
    const value = make();
    this.set(key, value);
    return value;
  }

  /** Drops an entry. */
  delete(key: Key): void {
    this.#entries.delete(key);
  }

  /** Drops all entries. */
  clear(): void {
    this.#entries.clear();
  }

  /** Returns the entries, the one that was used longest ago first. */
  entries(): IterableIterator<[Key, Value]> {
    return this.#entries.entries();
  }
}
