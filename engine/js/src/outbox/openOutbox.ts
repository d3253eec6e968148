/** Opens the outbox of an engine, or one in memory where nothing can be stored. */

import { StorageError } from "../errors.js";
import { IndexedDbStorage } from "./indexedDbStorage.js";
import { MemoryStorage } from "./memoryStorage.js";
import { Outbox, type OutboxOptions } from "./outbox.js";
import type { OutboxStorage } from "./storage.js";

/**
 * Returns the outbox of a database's name, of a storage, or of neither.
 *
 * Where it cannot be opened, as in some private windows, the outbox is in memory: recommending and
 * uploading go on, and `fault` says why no reward is durable.
 */
export async function openOutbox(
  state: string | OutboxStorage | null,
  options: OutboxOptions,
): Promise<Outbox> {
  if (state === null) {
    const fault = "the engine was opened without `state`";
    return Outbox.open(new MemoryStorage(fault), options);
  }
  try {
    const storage = typeof state === "string" ? await IndexedDbStorage.open(state) : state;
    return await Outbox.open(storage, options);
  } catch (error) {
    if (!(error instanceof StorageError)) {
      throw error;
    }
    console.error(`sanderling: nothing can be stored, recommending goes on: ${error.message}`);
    const fault = `kept in memory until this page ends: ${error.message}`;
    return Outbox.open(new MemoryStorage(fault), options);
  }
}
