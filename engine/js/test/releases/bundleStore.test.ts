import assert from "node:assert/strict";
import { mkdtemp, readdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";

import { IDBFactory } from "fake-indexeddb";

import { StorageError } from "../../src/errors.js";
import { type BundleStore, MemoryBundleStore } from "../../src/releases/bundleStore.js";
import { FolderBundleStore } from "../../src/releases/folderBundleStore.js";
import { IndexedDbBundleStore } from "../../src/releases/indexedDbBundleStore.js";
import { FakeLocks } from "../support/fakeLocks.js";

/** What every store does; `open` opens the same one again, as another engine would. */
async function checkStore(open: () => BundleStore): Promise<void> {
  const store = open();
  assert.equal(await store.read("slots.json"), null);
  assert.deepEqual(await store.keys(), []);
  await store.write("slots.json", Uint8Array.of(1));
  await store.write("files/ab", Uint8Array.of(2, 3));
  await store.write("slots.json", Uint8Array.of(4, 5, 6));
  await store.remove("files/cd");

  const other = open();
  assert.deepEqual(await other.read("slots.json"), Uint8Array.of(4, 5, 6));
  assert.deepEqual(await other.read("files/ab"), Uint8Array.of(2, 3));
  const keys = await other.keys();
  assert.deepEqual(keys.filter((key) => key !== "files").sort(), ["files/ab", "slots.json"]);
  await other.remove("files/ab");
  assert.equal(await store.read("files/ab"), null);

  const release = await store.lock();
  assert.notEqual(release, null);
  assert.equal(await other.lock(), null);
  await release!();
  const next = await other.lock();
  assert.notEqual(next, null);
  await next!();
  const free = await store.freeBytes();
  assert.ok(free === null || free > 0);
}

test("Memory keeps values and has one owner.", async () => {
  const store = new MemoryBundleStore();
  await checkStore(() => store);
});

test("A folder keeps values and has one owner.", async () => {
  const folder = join(await mkdtemp(join(tmpdir(), "bundles-")), "new", "bundles");
  await checkStore(() => new FolderBundleStore(folder));
});

test("IndexedDB keeps values and has one owner.", async () => {
  const objects = { factory: new IDBFactory(), locks: new FakeLocks() as unknown as LockManager };
  await checkStore(() => new IndexedDbBundleStore("shop", objects));
});

test("A file of which half was written is no value.", async () => {
  const folder = await mkdtemp(join(tmpdir(), "bundles-"));
  const store = new FolderBundleStore(folder);
  await writeFile(join(folder, "slots.json.partial"), "half");
  assert.equal(await store.read("slots.json"), null);
  await store.write("slots.json", Uint8Array.of(1));
  assert.deepEqual(await readdir(folder), ["slots.json"]);
});

test("A folder that cannot be made is an error that names it.", async () => {
  const file = join(await mkdtemp(join(tmpdir(), "bundles-")), "file");
  await writeFile(file, "");
  const store = new FolderBundleStore(join(file, "bundles"));
  await assert.rejects(store.write("slots.json", Uint8Array.of(1)), StorageError);
  assert.equal(await store.read("slots.json"), null);
  assert.equal(await store.lock(), null);
});

test("A browser that forbids IndexedDB is an error that says so.", async () => {
  const factory = new IDBFactory();
  factory.open = () => {
    throw new DOMException("denied", "SecurityError");
  };
  const store = new IndexedDbBundleStore("shop", { factory });
  await assert.rejects(store.read("slots.json"), /sanderling:shop:bundles: .*denied/);
});
