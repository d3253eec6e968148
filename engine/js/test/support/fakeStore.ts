/** A key-value store as AsyncStorage is one, which can fail from some call on. */

import type { KeyValueStore } from "../../src/outbox/keyValueStorage.js";

/** Fails each call once `callsLeft` have been answered. */
export class FakeStore implements KeyValueStore {
  callsLeft = Infinity;

  constructor(readonly values = new Map<string, string>()) {}

  async getAllKeys(): Promise<string[]> {
    return [...this.values.keys()].reverse(); // no order is promised
  }

  async getMany(keys: string[]): Promise<Record<string, string | null>> {
    return Object.fromEntries(keys.map((key) => [key, this.values.get(key) ?? null]));
  }

  async setItem(key: string, value: string): Promise<void> {
    this.#call();
    this.values.set(key, value);
  }

  async removeMany(keys: string[]): Promise<void> {
    this.#call();
    keys.forEach((key) => this.values.delete(key));
  }

  #call(): void {
    if (this.callsLeft <= 0) {
      throw new Error("the disk is gone");
    }
    this.callsLeft -= 1;
  }
}
