import assert from "node:assert/strict";
import { test } from "node:test";

import { FolderSource } from "../src/bundle/folderSource.js";
import type { RecommendArguments } from "../src/index.js";
import * as modules from "../src/index.js";
import { pathOf } from "./support/bundles.js";
import { type Case, loadCases } from "./support/conformance.js";
import { FakeClock, fakeEntropy } from "./support/fakes.js";

const MINIFIED = new URL("../sanderling.js", import.meta.url);

test("The minified package decides as its modules do, and names the same.", async () => {
  const minified: typeof modules = await import(MINIFIED.href);
  assert.deepEqual(Object.keys(minified), Object.keys(modules));
  assert.equal((await minified.loadKernels()).source, "wasm"); // found beside the file

  const { bundles, cases } = loadCases("slates-requests");
  const ours = cases.filter(({ bundle, plan }) => bundle === "shop" && !("scheme" in plan));
  const asked = ours.slice(0, 50).map(({ request }) => argumentsOf(request));
  assert.equal(asked.length, 50);
  const folder = bundles["shop"]!;
  assert.equal(await decided(minified, folder, asked), await decided(modules, folder, asked));
});

/** Returns what an engine decides and finds as JSON, at a fixed time, its entropy from a seed. */
async function decided(
  { Engine }: typeof modules,
  folder: string,
  asked: readonly RecommendArguments[],
): Promise<string> {
  const options = { clock: new FakeClock(), entropy: fakeEntropy(17) };
  const engine = await Engine.open(new FolderSource(pathOf(folder)), options);
  await engine.observe("ada", "item-10", "view");
  const slates = [];
  for (const request of asked) {
    slates.push(await engine.recommend(request));
  }
  const { items } = await engine.search("blue coffee", { user: "ada" });
  assert.equal(items.length, 10);
  return JSON.stringify([...slates, items]);
}

function argumentsOf(request: Case): RecommendArguments {
  const { at_most: atMost, after: _, ...same } = request;
  return { user: "ada", ...same, ...(atMost && { atMost }) } as RecommendArguments;
}
