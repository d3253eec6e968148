/** Opens databases of IndexedDB. */

import { StorageError } from "../errors.js";

/** Safari has left `open` without an answer before. */
const OPEN_TIMEOUT_MS = 5000;

/** Objects of the browser that a test can replace. */
export interface BrowserObjects {
  readonly factory?: IDBFactory;
  readonly locks?: LockManager | undefined;
}

/** How a database is made, and given up. */
export interface DatabaseOptions {
  /** Makes the stores of a new database. */
  readonly create: (database: IDBDatabase) => void;

  /** Called when the database was closed: by the browser, or for a later version of the page. */
  readonly onClose: () => void;
}

/** Returns the database of a name; throws `StorageError` where it cannot be opened in time. */
export async function openDatabase(
  factory: IDBFactory,
  name: string,
  { create, onClose }: DatabaseOptions,
): Promise<IDBDatabase> {
  const opened = requested(factory, name, create);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("it does not answer")), OPEN_TIMEOUT_MS);
  });
  try {
    const database = await Promise.race([opened, late]);
    const close = (): void => {
      database.close();
      onClose();
    };
    database.onclose = close;
    database.onversionchange = close; // a later version of the page upgrades or deletes it
    return database;
  } catch (error) {
    void opened.then((database) => database.close()).catch(() => {});
    const reason = error instanceof Error ? error.message : String(error);
    throw new StorageError(`expected a usable IndexedDB: ${reason}`);
  } finally {
    clearTimeout(timer);
  }
}

function requested(
  factory: IDBFactory,
  name: string,
  create: (database: IDBDatabase) => void,
): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = factory.open(name, 1); // throws in some private windows and frames
    request.onupgradeneeded = () => create(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("another tab has an older version of it open"));
    request.onsuccess = () => resolve(request.result);
  });
}
