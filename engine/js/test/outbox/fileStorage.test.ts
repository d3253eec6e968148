import assert from "node:assert/strict";
import { appendFile, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { FileStorage } from "../../src/outbox/fileStorage.js";
import { changes, checkCommits, row } from "../support/storages.js";

async function folder(): Promise<string> {
  return mkdtemp(join(tmpdir(), "sanderling-"));
}

/** Returns a folder to which rows 1 and 2 were committed, one after the other. */
async function folderOfTwoCommits(): Promise<string> {
  const path = await folder();
  const storage = await FileStorage.open(path);
  await storage.load();
  await storage.commit(changes({ put: [row(1)] }));
  await storage.commit(changes({ put: [row(2)] }));
  await storage.close();
  return path;
}

test("What is committed to a file is there when it is opened again.", async () => {
  const path = await folder();
  await checkCommits(() => FileStorage.open(path));
});

test("A file whose last line is torn is read up to there, and goes on.", async () => {
  const path = await folderOfTwoCommits();
  const file = join(path, "outbox.log");
  const whole = await readFile(file);
  for (const length of [whole.length - 1, whole.length - 20, Math.ceil(whole.length / 2) + 1]) {
    await writeFile(file, whole.subarray(0, length));
    let storage = await FileStorage.open(path);
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
  const path = await folderOfTwoCommits();
  const file = join(path, "outbox.log");
  const data = await readFile(file);
  data[30]! ^= 1;
  await writeFile(file, data);
  const storage = await FileStorage.open(path);
  const found = await storage.load();
  assert.deepEqual([found.header, found.rows, found.wasDamaged], [null, [], true]);
  assert.ok((await readdir(path)).includes("corrupt.log"));

  await storage.commit(changes({ header: { ...changes().header, seq: 1 }, put: [row(1)] }));
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

test("A storage serves one engine, and none after it was closed.", async () => {
  const path = await folder();
  const storage = await FileStorage.open(path);
  await storage.load();
  await assert.rejects(storage.load(), /a storage of its own for each engine/);
  await storage.commit(changes({ put: [row(1)] }));
  await storage.close();
  await assert.rejects(storage.load(), /call FileStorage.open again/);
  const again = await FileStorage.open(path);
  assert.deepEqual((await again.load()).rows, [row(1)]);
  await again.close();
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

