/** Stands for fake-indexeddb where the tests run in a browser: that has a real one. */

let factories = 0;

/** The browser's IndexedDB with names of its own, as if nothing had been stored before. */
export class IDBFactory {
  readonly #prefix = `${Date.now()}-${factories++}-`;

  open = (name: string, version?: number): IDBOpenDBRequest =>
    indexedDB.open(this.#prefix + name, version);

  deleteDatabase(name: string): IDBOpenDBRequest {
    return indexedDB.deleteDatabase(this.#prefix + name);
  }
}
