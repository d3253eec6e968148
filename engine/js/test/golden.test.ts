import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { MemorySource } from "../src/bundle/source.js";
import { Engine } from "../src/engine.js";
import { BundleError } from "../src/errors.js";
import { MissingPackageError } from "../src/ranking/missingPackage.js";
import { onnxRuntimeWeb } from "../src/ranking/onnxRuntimeWeb.js";
import { filesIn, GOLDEN, TINY } from "./support/bundles.js";
import { KERNELS } from "./support/kernels.js";

const options = { kernels: KERNELS[0]!, verify: true };

/** Returns the golden bundle with another golden.json, whose hash is in the manifest. */
function withGolden(change: (golden: any) => void): MemorySource {
  const files = filesIn("tests/golden/bundle-1");
  const decoder = new TextDecoder();
  const golden = JSON.parse(decoder.decode(files.get("golden.json")));
  change(golden);
  const data = new TextEncoder().encode(JSON.stringify(golden));
  const manifest = JSON.parse(decoder.decode(files.get("manifest.json")));
  const sha256 = createHash("sha256").update(data).digest("hex");
  manifest.files["golden.json"] = { length: data.length, sha256 };
  files.set("golden.json", data);
  files.set("manifest.json", new TextEncoder().encode(JSON.stringify(manifest)));
  return new MemorySource(files);
}

test("The bundles of the repository compute here what they computed in the lab.", async () => {
  for (const source of [GOLDEN, TINY]) {
    assert.equal((await Engine.open(source, options)).release, 1);
  }
});

test("A bundle that ranks or encodes otherwise than in the lab is refused.", async () => {
  const changes: [(golden: any) => void, RegExp][] = [
    [(golden) => golden.states[0].top.fill("x"), /golden state 0: expected a top-10 overlap/],
    [(golden) => golden.texts[0].vector.fill(1), /golden text "[^"]*": expected a cosine/],
    [(golden) => golden.texts[0].vector.pop(), /expected 15 numbers, found 16/],
    [(golden) => golden.texts.splice(0), /golden.json: expected texts and states, found none/],
    [(golden) => delete golden.states, /golden.json: Object missing required field `states`/],
  ];
  for (const [change, message] of changes) {
    await assert.rejects(Engine.open(withGolden(change), options), (error: Error) => {
      assert.ok(error instanceof BundleError);
      assert.match(error.message, message);
      return true;
    });
  }
});

test("A bundle whose rules no request can meet is refused.", async () => {
  const files = filesIn("tests/golden/bundle-1");
  const manifest = JSON.parse(new TextDecoder().decode(files.get("manifest.json")));
  for (const [where, message] of [
    [{ shelves: "sea" }, /manifest.json: rules: .*shelves/],
    [{ id: "no such item" }, /manifest.json: rules: /],
    [{ year: { above: 1 } }, /manifest.json: rules: .*expected an operator/],
  ] as const) {
    manifest.rules = { where };
    files.set("manifest.json", new TextEncoder().encode(JSON.stringify(manifest)));
    await assert.rejects(Engine.open(new MemorySource(files), options), message);
  }
});

test("Without the encoder's packages a bundle opens, and contexts are ignored.", async () => {
  const encoder = async (): Promise<never> => {
    throw new MissingPackageError("onnxruntime-web", "not found");
  };
  const engine = await Engine.open(TINY, { ...options, encoder });
  const slate = await engine.recommend({ user: "ada", context: "rain" });
  assert.equal(slate.length, 10);
  assert.equal(engine.counters().encoder.failed, 1);
  assert.match(engine.counters().encoder.lastFault!, /npm install onnxruntime-web/);
});

test("A context changes a slate, and added items rank by their texts.", async () => {
  const engine = await Engine.open(GOLDEN, { kernels: KERNELS[0]!, encoder: onnxRuntimeWeb });
  const idsIn = async (context: string) =>
    (await engine.recommend({ user: "ada", greedy: true, context })).items.map(({ id }) => id);
  assert.notDeepEqual(await idsIn("a rainy day"), await idsIn("sunshine at the sea"));
  assert.equal(engine.counters().encoder.failed, 0);

  const { text, ...book } = { id: "new-moon", text: "A voyage to the moon", year: 1901 };
  await engine.upsertItems([{ ...book, text }]);
  const slate = await engine.recommend({ user: "ada", k: 51, greedy: true });
  const added = slate.items.find(({ id }) => id === "new-moon")!;
  assert.equal(added.title, text);
  assert.deepEqual(added.attributes, { text, year: 1901, added_ms: added.attributes["added_ms"] });
});
