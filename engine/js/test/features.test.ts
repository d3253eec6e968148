import assert from "node:assert/strict";
import { test } from "node:test";

import { MemorySource } from "../src/bundle/source.js";
import { Engine } from "../src/engine.js";
import { BundleError } from "../src/errors.js";
import { MemoryStorage } from "../src/outbox/memoryStorage.js";
import type { Slate } from "../src/slate.js";
import { filesIn, reseal } from "./support/bundles.js";
import { unpacked } from "./support/conformance.js";

const FILES = filesIn("tests/conformance/bundles/features");
const encoder = async () => async (text: string) => {
  const vector = new Float32Array(16).fill(0.1);
  for (const letter of text) {
    vector[letter.codePointAt(0)! % 16]! += 1;
  }
  const length = Math.hypot(...vector);
  return vector.map((value) => value / length);
};

function open(state?: MemoryStorage): Promise<Engine> {
  return Engine.open(new MemorySource(FILES), { encoder, state: state ?? null });
}

const NEW = {
  id: "sku-1",
  text: "blue jazz album",
  genres: ["jazz"],
  shelf: "sea",
  price: 12.5,
  image: [0.5, 1, -2, 0, 0, 3, 1, 1, 1],
  colour: "a name that the release does not know",
};

/** Returns the scores of a slate's items by id. */
function scoresOf(slate: Slate): Record<string, number> {
  return Object.fromEntries(slate.items.map(({ id, score }) => [id, score]));
}

async function scoreOfNew(engine: Engine): Promise<number> {
  const slate = await engine.recommend({ user: "ada", k: 1, among: ["sku-1"] });
  return slate.items[0]!.score;
}

async function observed(engine: Engine): Promise<Engine> {
  await engine.observe("ada", "item-3", "click");
  return engine;
}

test("Features of a context move scores, what is unknown or null does not.", async () => {
  const engine = await open();
  const all = { user: "ada", k: 30, greedy: true };
  const plain = scoresOf(await engine.recommend(all));
  const evening = await engine.recommend({ ...all, context: { hour: 18, device: "tv" } });
  assert.notDeepEqual(scoresOf(evening), plain);
  for (const context of [{ mood: "good" }, { device: "watch" }, { hour: null }, { text: "" }, {}]) {
    assert.deepEqual(scoresOf(await engine.recommend({ ...all, context })), plain);
  }
  const asText = await engine.recommend({ ...all, context: "rain" });
  const asFeature = await engine.recommend({ ...all, context: { text: "rain" } });
  assert.deepEqual(scoresOf(asFeature), scoresOf(asText));

  const given = { hour: 18, device: "tv", text: "stormy night" };
  const shown = (await engine.recommend({ ...all, context: given })).items[0]!;
  const why = await shown.why();
  const without = { ...given, text: "night" };
  const calm = scoresOf(await engine.recommend({ ...all, context: without }))[shown.id]!;
  assert.equal(why.contextEffect, shown.score - plain[shown.id]!);
  assert.equal(why.words.find(({ word }) => word === "stormy")!.effect, shown.score - calm);
  await engine.close();
});

test("A shared context is the text's vector with the features behind it.", async () => {
  const state = new MemoryStorage();
  const options = { encoder, state, shareContext: true };
  const engine = await Engine.open(new MemorySource(FILES), options);
  const slate = await engine.recommend({ user: "ada", context: { device: "tv" } });
  await engine.reward(slate, slate.items[0]!, 1);
  const { rows } = await state.load();
  const line = rows.find(({ type }) => type === "decision")!.line;
  const vector = unpacked(JSON.parse(line).context);
  assert.equal(vector.length, 16 + 32);
  assert.deepEqual([...vector].flatMap((x, i) => (x === 0 ? [] : [[i, x]])), [[16 + 27, 1]]);
  await engine.close();
});

test("An added item is placed by its attributes, and keeps its vector.", async () => {
  const state = new MemoryStorage();
  const engine = await observed(await open(state));
  await engine.upsertItems([NEW]);
  const score = await scoreOfNew(engine);
  for (const other of [{ shelf: "crime" }, { price: 80 }, { image: [1, 0, 0, 0, 0, 0, 0, 0, 0] }]) {
    await engine.upsertItems([{ ...NEW, ...other }]);
    assert.notEqual(await scoreOfNew(engine), score);
  }
  await engine.upsertItems([NEW]);
  await engine.setAttributes({ "sku-1": { price: 99, shelf: "crime" } });
  await engine.upsertItems([{ id: "sku-2", text: "tent" }]);
  assert.equal(await scoreOfNew(engine), score);
  const slate = await engine.recommend({ user: "ada", among: ["sku-1"] });
  const { attributes } = slate.items[0]!;
  assert.equal(attributes["price"], 99);
  assert.ok(!("image" in attributes));

  const [word] = (await slate.items[0]!.why()).words.filter((each) => each.word === "blue");
  await engine.upsertItems([{ ...NEW, text: "jazz album" }]);
  const last = await scoreOfNew(engine);
  assert.equal(word!.effect, score - last);
  await engine.close();

  const noEncoder = async () => {
    throw new Error("expected no text to be encoded");
  };
  const again = await Engine.open(new MemorySource(FILES), { encoder: noEncoder, state });
  assert.equal(await scoreOfNew(again), last);
  await again.upsertItems([{ ...NEW, text: "jazz album", colour: "any" }]);
  assert.equal(await scoreOfNew(again), last);
  await again.close();
});

test("A value of another type is one error, and nothing is added.", async () => {
  const engine = await open();
  const call = engine.upsertItems([NEW, { ...NEW, id: "odd", image: [1] }]);
  await assert.rejects(call, {
    name: "TypeError",
    message: "items: odd: image: expected a list of 9 numbers, found [1]",
  });
  const changed = engine.setAttributes({ "item-1": { image: 7 } });
  await assert.rejects(changed, /^TypeError: changes: item-1: image: expected a list of 9 numbers/);
  const asked = engine.recommend({ user: "ada", where: { image: { exists: true } } });
  await assert.rejects(asked, /^RangeError: where: image: .* found one of vectors/);
  const wrong = engine.recommend({ user: "ada", context: { hour: [18] } });
  await assert.rejects(wrong, /^TypeError: context: hour: expected one text, number or boolean/);
  assert.equal((await engine.recommend({ user: "ada", among: ["sku-1"] })).length, 0);
  await engine.close();
});

test("Features that are not finite are refused when a bundle is verified.", async () => {
  const policy = FILES.get("policy.safetensors")!.slice();
  const header = Number(new DataView(policy.buffer).getBigUint64(0, true));
  const tensors = JSON.parse(new TextDecoder().decode(policy.subarray(8, 8 + header)));
  for (const name of ["item.feature_project", "item.feature_mean", "context.feature_project"]) {
    const changed = policy.slice();
    new DataView(changed.buffer).setFloat32(8 + header + tensors[name].data_offsets[0], NaN, true);
    const files = new Map(FILES).set("policy.safetensors", changed);
    reseal(files, ["policy.safetensors"]);
    const opened = Engine.open(new MemorySource(files), { encoder, verify: true });
    await assert.rejects(opened, (error: Error) => {
      assert.ok(error instanceof BundleError);
      assert.equal(error.message, `${name}: expected finite numbers`);
      return true;
    });
  }
});
