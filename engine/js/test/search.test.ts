import assert from "node:assert/strict";
import { test } from "node:test";

import { Engine } from "../src/engine.js";
import { TINY } from "./support/bundles.js";
import { KERNELS } from "./support/kernels.js";

const noEncoder = () => Promise.reject(new Error("no encoder in this test"));

/** Encodes every text as the same unit vector [t]. */
const encoder = async () => async () => new Float32Array(32).fill(32 ** -0.5);

test("Words are found in titles and attributes, unfinished and mistyped ones too.", async () => {
  const engine = await Engine.open(TINY, { kernels: KERNELS[0]!, encoder: noEncoder });
  for (const query of ["treasure isl", "TREASURE  ISLAND!", "treasure islnad", "trèasure"]) {
    assert.equal((await engine.search(query)).items[0]!.title, "Treasure Island", query);
  }
  const found = await engine.search("herman melvile", { where: { year: { lt: 1900 } }, k: 3 });
  assert.ok(found.items.every((item) => item.attributes["author"] === "Herman Melville"));
  assert.equal((await engine.search("?! ...")).length, 0);
  assert.equal(engine.counters().encoder.lastFault, "no encoder in this test");
});

test("What the app changed, added and removed a moment ago is found as it is now.", async () => {
  const engine = await Engine.open(TINY, { kernels: KERNELS[0]!, encoder });
  const idsFor = async (query: string) =>
    (await engine.search(query, { k: 1 })).items.map((item) => item.id);
  await engine.setAttributes({ emma: { shelf: "zoology" } });
  assert.deepEqual(await idsFor("zoology"), ["emma"]);
  await engine.upsertItems([{ id: "new", text: "Zoology of the ocean", title: "Neu" }]);
  assert.deepEqual(await idsFor("zoology ocean"), ["new"]);
  assert.ok((await engine.similar("new", { k: 5 })).length === 5);
  await engine.removeItems(["new"]);
  assert.deepEqual(await idsFor("zoology ocean"), ["emma"]);
});

test("Similar items leave the item out, and meet the rule.", async () => {
  const engine = await Engine.open(TINY, { kernels: KERNELS[0]!, encoder: noEncoder });
  await engine.warmUp({ search: true });
  const alike = await engine.similar("moby-dick", { k: 8, where: { shelf: "sea" } });
  assert.equal(alike.length, 8);
  assert.ok(alike.items.every((item) => item.id !== "moby-dick"));
  assert.ok(alike.items.every((item) => item.attributes["shelf"] === "sea" && item.score <= 1.001));
  await assert.rejects(engine.similar("no such"), /item: expected an item of the catalog/);
  await assert.rejects(engine.similar(alike.items[0]!, { K: 3 } as never), TypeError);
  await assert.rejects(engine.search(7 as never), TypeError);
});

test("A user's behaviour changes the order of what a word finds.", async () => {
  const engine = await Engine.open(TINY, { kernels: KERNELS[0]!, encoder: noEncoder });
  const before = await engine.search("sea", { user: "ada", k: 12 });
  for (const item of before.items.slice(-3)) {
    await engine.observe("ada", item.id, "like");
  }
  const after = await engine.search("sea", { user: "ada", k: 12 });
  assert.notDeepEqual(
    after.items.map((item) => item.id),
    before.items.map((item) => item.id),
  );
});

test("Texts become vectors in their order, or an error says why not.", async () => {
  const engine = await Engine.open(TINY, { kernels: KERNELS[0]!, encoder });
  const vectors = await engine.encode(["rainy evening", ""]);
  assert.deepEqual(vectors, [await (await encoder())(), await (await encoder())()]);
  assert.deepEqual(await engine.encode([]), []);
  await assert.rejects(engine.encode("one" as never), /texts: expected a list/);
  await assert.rejects(engine.encode([7] as never), TypeError);
  const without = await Engine.open(TINY, { kernels: KERNELS[0]!, encoder: noEncoder });
  await assert.rejects(without.encode(["a"]), /no encoder in this test/);
});
