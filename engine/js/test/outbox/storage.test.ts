import assert from "node:assert/strict";
import { appendFile, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { IDBFactory } from "fake-indexeddb";

import { FileStorage } from "../../src/outbox/fileStorage.js";
import { IndexedDbStorage } from "../../src/outbox/indexedDbStorage.js";
import { MemoryStorage } from "../../src/outbox/memoryStorage.js";
import {
  ConflictError,
  type EventRow,
  type OutboxStorage,
  type StoredChanges,
} from "../../src/outbox/storage.js";

const HEADER = { install: "a".repeat(32), secret: "5".repeat(64), seq: 0, sentSeq: 0 };

function row(seq: number, line = `{"seq":${seq}}`): EventRow {
  return { seq, id: `id-${seq}`, type: "observation", decision: null, level: 0, line };
}

function changes(fields: Partial<StoredChanges> = {}): StoredChanges {
  const nothing = { clear: false, remove: [], put: [], states: new Map(), durable: true };
  return { header: HEADER, ...nothing, ...fields };
}

async function folder(): Promise<string> {
  return mkdtemp(join(tmpdir(), "sanderling-"));
}

/** Each kind: opens one, and opens the same again after it was closed. */
const KINDS: Record<string, () => Promise<() => Promise<OutboxStorage>>> = {
  memory: async () => {
    const storage = new MemoryStorage();
    return async () => storage;
  },
  file: async () => {
    const path = await folder();
    return () => FileStorage.open(path);
  },
  IndexedDB: async () => {
    const factory = new IDBFactory();
    return () => IndexedDbStorage.open("shop", { factory });
  },
};

for (const [kind, make] of Object.entries(KINDS)) {
  test(`What is committed to ${kind} is there when it is opened again.`, async () => {
    const open = await make();
    let storage = await open();
    assert.equal(storage.kind, kind);
    assert.deepEqual((await storage.load()).header, null);
    const states = new Map([["a", "1"], ["b", "☂"]]);
    await storage.commit(changes({ put: [row(1), row(2), row(3)], states }));
    const later = { ...HEADER, seq: 4, sentSeq: 2 };
    const changed = new Map([["a", null], ["c", ""]]);
    await storage.commit(changes({ header: later, remove: [2], put: [row(4)], states: changed }));
    await storage.commit(changes({ header: later, put: [row(3, "other")], durable: false }));
    await storage.close();

    storage = await open();
    const found = await storage.load();
    assert.deepEqual(found.header, later);
    const bySeq = [...found.rows].sort((a, b) => a.seq - b.seq);
    assert.deepEqual(bySeq, [row(1), row(3, "other"), row(4)]);
    assert.deepEqual(found.states, new Map([["b", "☂"], ["c", ""]]));
    assert.equal(found.wasDamaged, false);

    await storage.commit(changes({ clear: true, put: [row(9)] }));
    await storage.scrub();
    await storage.close();
    storage = await open();
    const cleared = await storage.load();
    assert.deepEqual([cleared.rows, cleared.states.size], [[row(9)], 0]);
    await storage.close();
  });
}

test("A file whose last line is torn is read up to there, and goes on.", async () => {
  const path = await folder();
  let storage = await FileStorage.open(path);
  await storage.load();
  await storage.commit(changes({ put: [row(1)] }));
  await storage.commit(changes({ put: [row(2)] }));
  await storage.close();

  const file = join(path, "outbox.log");
  const whole = await readFile(file);
  for (const length of [whole.length - 1, whole.length - 20, Math.ceil(whole.length / 2) + 1]) {
    await writeFile(file, whole.subarray(0, length));
    storage = await FileStorage.open(path);
    const found = await storage.load();
    assert.deepEqual(found.rows, [row(1)]);
    assert.equal(found.wasDamaged, false);
    await storage.commit(changes({ put: [row(3)] }));
    await storage.close();
    storage = await FileStorage.open(path);
    assert.deepEqual((await storage.load()).rows, [row(1), row(3)]);
    await storage.close();
  }
});

test("A file that is damaged before a durable line is moved aside.", async () => {
  const path = await folder();
  let storage = await FileStorage.open(path);
  await storage.load();
  await storage.commit(changes({ put: [row(1)] }));
  await storage.commit(changes({ put: [row(2)] }));
  await storage.close();

  const file = join(path, "outbox.log");
  const data = await readFile(file);
  data[30]! ^= 1;
  await writeFile(file, data);
  storage = await FileStorage.open(path);
  const found = await storage.load();
  assert.deepEqual([found.header, found.rows, found.wasDamaged], [null, [], true]);
  assert.ok((await readdir(path)).includes("corrupt.log"));

  await storage.commit(changes({ header: { ...HEADER, seq: 1 }, put: [row(1)] }));
  await storage.scrub();
  assert.deepEqual(await readdir(path), ["outbox.log"]);
  await storage.close();
});

test("A file is rewritten when most of it is out of date, and holds what was stored.", async () => {
  const path = await folder();
  const storage = await FileStorage.open(path);
  await storage.load();
  for (let seq = 1; seq <= 600; seq++) {
    await storage.commit(
      changes({ remove: [seq - 2], put: [row(seq, "x".repeat(1000))], durable: false }),
    );
  }
  assert.ok((await stat(join(path, "outbox.log"))).size < 300_000);
  await storage.close();
  const again = await FileStorage.open(path);
  assert.deepEqual((await again.load()).rows.map(({ seq }) => seq), [599, 600]);
  await again.close();
});

test("Deleted bytes are gone from the file after it was scrubbed.", async () => {
  const path = await folder();
  const storage = await FileStorage.open(path);
  await storage.load();
  await storage.commit(changes({ put: [row(1, "a secret"), row(2)] }));
  await storage.commit(changes({ remove: [1] }));
  const file = join(path, "outbox.log");
  assert.ok((await readFile(file, "utf8")).includes("a secret"));
  await storage.scrub();
  assert.ok(!(await readFile(file, "utf8")).includes("a secret"));
  await storage.close();
});

test("A folder is used by one engine at a time.", async () => {
  const path = await folder();
  const storage = await FileStorage.open(path);
  await assert.rejects(FileStorage.open(path), /one engine per state folder, found another/);
  await storage.close();
  await (await FileStorage.open(path)).close();
});

test("A commit into a file that was removed or extended by others fails or mends it.", async () => {
  const path = await folder();
  const storage = await FileStorage.open(path);
  await storage.load();
  await storage.commit(changes({ put: [row(1)] }));
  await appendFile(join(path, "outbox.log"), "half of a line");
  await storage.commit(changes({ put: [row(2)] }));
  await storage.close();
  const again = await FileStorage.open(path);
  assert.deepEqual((await again.load()).rows, [row(1), row(2)]);
  await rm(join(path, "outbox.log"));
  await assert.rejects(again.commit(changes({ put: [row(3)] })), /outbox\.log/);
  await again.close();
});

test("A folder that cannot be used is named.", async () => {
  const path = join(await folder(), "file");
  await writeFile(path, "");
  await assert.rejects(FileStorage.open(path), /expected a usable outbox in/);
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
