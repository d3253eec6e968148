import assert from "node:assert/strict";
import { test } from "node:test";

import { IDBFactory } from "fake-indexeddb";

import { IndexedDbStorage } from "../../src/outbox/indexedDbStorage.js";
import { MemoryStorage } from "../../src/outbox/memoryStorage.js";
import { ConflictError } from "../../src/outbox/storage.js";
import { changes, checkCommits, row } from "../support/storages.js";

test("What is committed to memory is there when it is opened again.", async () => {
  const storage = new MemoryStorage();
  await checkCommits(async () => storage);
});

test("What is committed to IndexedDB is there when it is opened again.", async () => {
  const factory = new IDBFactory();
  await checkCommits(() => IndexedDbStorage.open("shop", { factory }));
});

test("A tab that has not seen another's commit does not overwrite it.", async () => {
  const factory = new IDBFactory();
  const first = await IndexedDbStorage.open("shop", { factory });
  const second = await IndexedDbStorage.open("shop", { factory });
  await Promise.all([first.load(), second.load()]);
  const told = new Promise<void>((resolve) => (second.onForeignChange = resolve));
  await first.commit(changes({ put: [row(1)] }));
  await told;
  await assert.rejects(second.commit(changes({ put: [row(1, "mine")] })), ConflictError);

  assert.deepEqual((await second.load()).rows, [row(1)]);
  await second.commit(changes({ put: [row(2)] }));
  await assert.rejects(first.commit(changes({ put: [row(2, "mine")] })), ConflictError);
  await Promise.all([first.close(), second.close()]);
});

test("A tab notices that the browser's user has cleared what was stored.", async () => {
  const factory = new IDBFactory();
  const storage = await IndexedDbStorage.open("shop", { factory });
  await storage.load();
  await storage.commit(changes({ put: [row(1)] }));
  const request = factory.deleteDatabase("sanderling:shop"); // the storage lets it happen
  await new Promise((resolve) => (request.onsuccess = resolve));
  await assert.rejects(storage.commit(changes({ put: [row(2)] })), ConflictError);
  assert.deepEqual((await storage.load()).header, null);
  await storage.close();
});

test("A browser that forbids IndexedDB is an error that says so.", async () => {
  const factory = new IDBFactory();
  factory.open = () => {
    throw new DOMException("denied", "SecurityError");
  };
  await assert.rejects(IndexedDbStorage.open("shop", { factory }), /usable IndexedDB: denied/);
});
