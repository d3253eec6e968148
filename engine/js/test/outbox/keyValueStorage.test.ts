import assert from "node:assert/strict";
import { test } from "node:test";

import { StorageError } from "../../src/errors.js";
import { KeyValueStorage } from "../../src/outbox/keyValueStorage.js";
import { FakeStore } from "../support/fakeStore.js";
import { changes, checkCommits, row } from "../support/storages.js";

test("What is committed to a key-value store is there when it is opened again.", async () => {
  const store = new FakeStore();
  await checkCommits(async () => new KeyValueStorage(store));
});

test("A thousand commits leave few values, and all contents.", async () => {
  const store = new FakeStore();
  const storage = new KeyValueStorage(store);
  await storage.load();
  for (let seq = 1; seq <= 1000; seq++) {
    const states = new Map([["last", String(seq)]]);
    await storage.commit(changes({ put: [row(seq)], remove: [seq - 10], states }));
  }
  assert.ok(store.values.size <= 256);
  const found = await new KeyValueStorage(store).load();
  assert.deepEqual(found.rows.map(({ seq }) => seq), Array.from({ length: 10 }, (_, i) => 991 + i));
  assert.equal(found.states.get("last"), "1000");
});

test("Killed between any two calls of the store, nothing that was promised is lost.", async () => {
  for (let calls = 0; calls < 40; calls++) {
    const store = new FakeStore();
    const storage = new KeyValueStorage(store);
    await storage.load();
    for (let seq = 1; seq <= 240; seq++) {
      await storage.commit(changes({ put: [row(seq)], remove: [seq - 3] }));
    }
    store.callsLeft = calls;
    let promised = 240;
    for (let seq = 241; seq <= 280; seq++) {
      const storing = storage.commit(changes({ put: [row(seq)], remove: [seq - 3] }));
      await storing.then(() => (promised = seq), () => undefined);
    }
    const alive = new FakeStore(store.values);
    const { rows } = await new KeyValueStorage(alive).load();
    assert.deepEqual(rows.map(({ seq }) => seq), [promised - 2, promised - 1, promised]);
  }
});

test("A store that fails or holds what cannot be read is a storage error.", async () => {
  const store = new FakeStore(new Map([["commit-000000000000", "{"], ["other", "{"]]));
  await assert.rejects(new KeyValueStorage(store).load(), StorageError);
  store.values.delete("commit-000000000000");
  const storage = new KeyValueStorage(store);
  assert.equal((await storage.load()).header, null);
  store.callsLeft = 0;
  await assert.rejects(storage.commit(changes()), StorageError);
});
