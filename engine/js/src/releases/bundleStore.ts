/** Where installed bundles are kept on the device, such as IndexedDB or a folder. */

/**
 * Small and large values by key. Keys are like paths: `slots.json`, `files/9f86d0…`.
 *
 * All but `lock` throw `StorageError` where the storage fails, `StorageFullError` where it is full.
 */
export interface BundleStore {
  /** Names the store in errors. */
  readonly name: string;

  /** Returns a value, or null where there is none. */
  read(key: string): Promise<Uint8Array | null>;

  /** Stores a value, whole or not at all; it survives a power cut once this resolves. */
  write(key: string, value: Uint8Array): Promise<void>;

  /** Removes a value, if there is one. */
  remove(key: string): Promise<void>;

  /** Returns all keys. */
  keys(): Promise<string[]>;

  /** Returns how many bytes may be stored yet, null where that is not known. */
  freeBytes(): Promise<number | null>;

  /**
   * Takes the store for one engine; returns how to give it back, or null where another has it.
   *
   * A process or page that ends, however it ends, gives it back.
   */
  lock(): Promise<(() => Promise<void>) | null>;
}

/** Keeps bundles until the page or the process ends. */
export class MemoryBundleStore implements BundleStore {
  readonly name = "memory";
  readonly #values = new Map<string, Uint8Array>();
  #isLocked = false;

  async read(key: string): Promise<Uint8Array | null> {
    return this.#values.get(key) ?? null;
  }

  async write(key: string, value: Uint8Array): Promise<void> {
    this.#values.set(key, value);
  }

  async remove(key: string): Promise<void> {
    this.#values.delete(key);
  }

  async keys(): Promise<string[]> {
    return [...this.#values.keys()];
  }

  async freeBytes(): Promise<null> {
    return null;
  }

  async lock(): Promise<(() => Promise<void>) | null> {
    if (this.#isLocked) {
      return null;
    }
    this.#isLocked = true;
    return async () => {
      this.#isLocked = false;
    };
  }
}
