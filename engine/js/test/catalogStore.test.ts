import assert from "node:assert/strict";
import { test } from "node:test";

import { IDBFactory } from "fake-indexeddb";

import { MemorySource } from "../src/bundle/source.js";
import { Engine } from "../src/engine.js";
import { StorageError } from "../src/errors.js";
import type { EngineOptions } from "../src/options.js";
import { CATALOG } from "../src/outbox/contents.js";
import { IndexedDbStorage } from "../src/outbox/indexedDbStorage.js";
import type { EncoderRuntime } from "../src/ranking/textEncoder.js";
import { filesIn, GOLDEN } from "./support/bundles.js";
import { FakeClock, FlakyStorage, openOutbox } from "./support/fakes.js";
import { KERNELS } from "./support/kernels.js";
import { noEncoder } from "./support/slates.js";

const NEW = { id: "new", text: "A new thing", price: 3 };

/** Stands for an encoder: any texts, any vectors. */
const anyEncoder: EncoderRuntime = async () => async (text) =>
  Float32Array.from({ length: 16 }, (_, i) => Math.sin(text.length + i));

function open(options: EngineOptions = {}, source = GOLDEN as MemorySource): Promise<Engine> {
  const kernels = KERNELS[0]!;
  return Engine.open(source, { kernels, encoder: noEncoder, clock: new FakeClock(), ...options });
}

/** Returns an engine's whole catalog as a greedy slate, by id. */
async function catalogOf(engine: Engine) {
  const slate = await engine.recommend({ user: "ada", k: 60, greedy: true });
  return new Map(slate.items.map((item) => [item.id, item]));
}

/** Returns the golden bundle as if it had been made at another time. */
function bundleOf(createdMs: number): MemorySource {
  const files = filesIn("tests/golden/bundle-1");
  const manifest = JSON.parse(new TextDecoder().decode(files.get("manifest.json")));
  manifest.created = createdMs / 1000;
  files.set("manifest.json", new TextEncoder().encode(JSON.stringify(manifest)));
  return new MemorySource(files);
}

test("Added, removed and changed items are there when the page is loaded again.", async () => {
  const state = new FlakyStorage();
  const first = await open({ state, encoder: anyEncoder });
  await first.upsertItems([NEW]);
  await first.removeItems(["item-1"]);
  await first.setAttributes({ new: { price: 2 }, "item-2": { stock: 5 } });
  const before = await catalogOf(first);
  await first.close();

  const second = await open({ state }); // without an encoder
  const after = await catalogOf(second);
  assert.equal(after.size, 50);
  assert.equal(after.has("item-1"), false);
  assert.equal(after.get("new")!.attributes["price"], 2);
  assert.equal(after.get("item-2")!.attributes["stock"], 5);
  assert.deepEqual([...after.values()], [...before.values()]);
});

test("Changes of the catalog outlive the install's identity, and a full outbox.", async () => {
  const state = new FlakyStorage();
  const engine = await open({ state, encoder: anyEncoder });
  await engine.upsertItems([NEW, { id: "long", text: "x".repeat(50_000) }]);
  await engine.close();
  const outbox = await openOutbox(state, 2 ** 16);
  await outbox.resetIdentity();
  for (let i = 0; i < 50; i++) {
    const states = new Map([[`state-${i}`, "x".repeat(1000)]]);
    await outbox.submit(() => ({ events: [], states }));
  }
  assert.equal(outbox.states(CATALOG).size, 2);
  await outbox.close();
  assert.ok((await catalogOf(await open({ state }))).has("long"));
});

test("A change that cannot be stored is an error, and nothing is changed.", async () => {
  const state = new FlakyStorage();
  const engine = await open({ state, encoder: anyEncoder });
  state.fail = () => {
    throw new StorageError("the disk is full");
  };
  const calls = [
    () => engine.upsertItems([NEW]),
    () => engine.removeItems(["item-1"]),
    () => engine.setAttributes({ "item-2": { stock: 5 } }),
  ];
  for (const call of calls) {
    await assert.rejects(call, new StorageError("the disk is full"));
  }
  state.fail = () => {};
  const catalog = await catalogOf(engine);
  assert.equal(catalog.has("new"), false);
  assert.equal(catalog.has("item-1"), true);
  assert.equal(catalog.get("item-2")!.attributes["stock"], undefined);
});

test("What one tab changes of the catalog the other one shows at its next call.", async () => {
  const factory = new IDBFactory();
  const tab = async () =>
    open({ state: await IndexedDbStorage.open("shop", { factory }), encoder: anyEncoder });
  const [first, second] = [await tab(), await tab()];
  await Promise.all([first.upsertItems([NEW]), second.setAttributes({ "item-2": { stock: 5 } })]);
  await first.setAttributes({ "item-2": { price: 7 } });
  for (const engine of [first, second]) {
    const isThere = async (): Promise<boolean> => {
      const catalog = await catalogOf(engine);
      const { stock, price } = catalog.get("item-2")!.attributes;
      return catalog.has("new") && stock === 5 && price === 7;
    };
    // Tabs hear of each other by messages, which may take a moment.
    for (let tries = 0; !(await isThere()); tries++) {
      assert.ok(tries < 500);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
  await Promise.all([first.close(), second.close()]);
});

test("A bundle that was made later has its own items again, but no removed ones.", async () => {
  const state = new FlakyStorage();
  const clock = new FakeClock();
  const engine = await open({ state, clock, encoder: anyEncoder });
  await engine.upsertItems([NEW, { id: "item-3", text: "Another third" }]);
  await engine.removeItems(["item-1"]);
  await engine.setAttributes({ "item-2": { title2: "x" } });
  await engine.close();

  const later = await catalogOf(await open({ state }, bundleOf(clock.wall + 60_000)));
  assert.equal(later.size, 50);
  assert.ok(later.has("new")); // the bundle does not know it
  assert.notEqual(later.get("item-3")!.title, "Another third");
  assert.equal(later.has("item-1"), false);
  assert.equal(later.get("item-2")!.attributes["title2"], "x");
});

test("An added item that cannot be encoded any more is left out, and not forgotten.", async (t) => {
  const warn = t.mock.method(console, "warn", () => {});
  const state = new FlakyStorage();
  const engine = await open({ state, encoder: anyEncoder });
  await engine.upsertItems([NEW]);
  await engine.close();
  const stored = (await state.load()).states;
  const key = `${CATALOG}item/new`;
  const { record } = JSON.parse(stored.get(key)!);
  const outbox = await openOutbox(state);
  await outbox.store(() => new Map([[key, JSON.stringify({ record })]]));
  await outbox.close();

  assert.equal((await catalogOf(await open({ state }))).has("new"), false);
  assert.match(String(warn.mock.calls[0]!.arguments[0]), /added item new left out/);
  assert.ok((await catalogOf(await open({ state, encoder: anyEncoder }))).has("new"));
});
