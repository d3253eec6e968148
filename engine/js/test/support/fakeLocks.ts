/** The locks of an origin, as browsers have them and Node 20 does not. */

type Callback = (lock: object | null) => unknown;

/** Grants each name once at a time. */
export class FakeLocks {
  readonly #held = new Set<string>();

  async request(name: string, _options: object, callback: Callback): Promise<unknown> {
    if (this.#held.has(name)) {
      return callback(null);
    }
    this.#held.add(name);
    try {
      return await callback({ name });
    } finally {
      this.#held.delete(name);
    }
  }
}
