import assert from "node:assert/strict";
import { test } from "node:test";

import { onnxRuntimeWeb } from "../../src/ranking/onnxRuntimeWeb.js";
import { BundleTextEncoder } from "../../src/ranking/textEncoder.js";
import { loadTokenizer } from "../../src/ranking/tokenizer.js";
import { loadCases, openBundle, unpacked } from "../support/conformance.js";

const MIN_COSINE = 0.9999;
const file = loadCases("tokens");

test("Texts become the same tokens as in Python, cut where they are cut there.", async () => {
  for (const [name, folder] of Object.entries(file.bundles)) {
    const bundle = await openBundle(folder);
    const { prefixes, sizes } = bundle.manifest;
    const tokenize = await loadTokenizer(await bundle.read("tokenizer.json"), sizes.max_tokens);
    for (const each of file.cases.filter((one) => one["bundle"] === name)) {
      const prefix = prefixes[each["as"] as "query" | "item"];
      const text = `${prefix}${each["text"]}`.replace(/[\uD800-\uDFFF]/gu, "?");
      assert.deepEqual([...tokenize(text)], each["ids"], JSON.stringify(each));
    }
  }
});

test("Texts become vectors with a cosine of at least .9999 to Python's.", async () => {
  let worst = 1;
  for (const [name, folder] of Object.entries(file.bundles)) {
    const encoder = new BundleTextEncoder(await openBundle(folder), onnxRuntimeWeb);
    for (const each of file.cases.filter((one) => one["bundle"] === name && "vector" in one)) {
      const { as, text } = each;
      const found = await (as === "item" ? encoder.encodeItem(text) : encoder.encode(text));
      const cosine = cosineOf(found, unpacked(each["vector"]));
      worst = Math.min(worst, cosine);
      assert.ok(cosine >= MIN_COSINE, `${cosine}: ${JSON.stringify(each)}`);
    }
  }
  assert.ok(worst < 1 + 1e-6);
});

function cosineOf(some: Float32Array, others: Float32Array): number {
  const dot = (a: Float32Array, b: Float32Array) =>
    a.reduce((sum, value, i) => sum + value * b[i]!, 0);
  return dot(some, others) / Math.sqrt(dot(some, some) * dot(others, others));
}
