import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { test } from "node:test";

import { Bundle } from "../src/bundle/bundle.js";
import { decodeJson } from "../src/bundle/decodeJson.js";
import { FetchSource, MemorySource } from "../src/bundle/source.js";
import { viewTensors } from "../src/bundle/tensors.js";
import { BundleError } from "../src/errors.js";
import { fileHash, sha256 } from "../src/runtime/sha256.js";
import { filesIn, GOLDEN } from "./support/bundles.js";

const FILES = filesIn("tests/golden/bundle-1");

/** Returns a `fetch` that serves the files of a bundle, and counts. */
function server(files: ReadonlyMap<string, Uint8Array>) {
  const asked: string[] = [];
  const fetch = async (url: string): Promise<Response> => {
    asked.push(url);
    const data = files.get(url.replace("https://shop.example/b/", ""));
    return data ? new Response(data.slice()) : new Response("", { status: 404 });
  };
  return { asked, source: new FetchSource("https://shop.example/b/", {}, fetch) };
}

test("All ids of a bundle are found, and no others.", async () => {
  const bundle = await Bundle.open(GOLDEN, true);
  let row = 0;
  for (const record of bundle.records()) {
    assert.equal(bundle.find(record["id"] as string), row);
    assert.deepEqual(bundle.record(row), record);
    row += 1;
  }
  assert.equal(row, 50);
  for (const id of ["", "item-50", "Item-1", "\ud800"]) {
    assert.equal(bundle.find(id), null);
  }
});

test("A bundle opens by URL without the files that only texts need.", async () => {
  const { asked, source } = server(FILES);
  const bundle = await Bundle.open(source);
  const names = ["catalog.jsonl", "items.safetensors", "manifest.json", "policy.safetensors"];
  assert.deepEqual(asked.map((url) => url.split("/").at(-1)).sort(), names);
  assert.equal((await bundle.read("tokenizer.json")).length, 2760);
});

test("A verified bundle is read whole, each file once.", async () => {
  const { asked, source } = server(FILES);
  await Bundle.open(source, true);
  assert.deepEqual(asked.map((url) => url.split("/").at(-1)).sort(), [...FILES.keys()].sort());
});

test("A catalog whose items have an attribute `then` is read.", () => {
  const text = '{"id": "a", "then": {"then": 1}}';
  const entry = decodeJson("catalog.jsonl: row 0", new TextEncoder().encode(text));
  assert.deepEqual(entry, { id: "a", then: { then: 1 } });
  assert.throws(
    () => decodeJson("catalog.jsonl: row 0", new TextEncoder().encode("[1, ")),
    new BundleError("catalog.jsonl: row 0: Expected `object`, got `array`"),
  );
});

test("A bundle that is not there, or a failing server, is an error with the URL.", async () => {
  await assert.rejects(
    Bundle.open(server(new Map()).source),
    new BundleError(
      "expected a bundle with a manifest.json in https://shop.example/b," +
        " found no regular file of that name",
    ),
  );
  const failing = new FetchSource("https://shop.example/b", {}, async () => {
    throw new TypeError("network");
  });
  await assert.rejects(Bundle.open(failing), /b\/manifest.json: expected a file that can be fetch/);
  const busy = new FetchSource("b", {}, async () => new Response("", { status: 503 }));
  await assert.rejects(Bundle.open(busy), /expected status 200, found 503/);
});

test("Old files that a cache has kept are asked for again, once.", async () => {
  for (const stale of ["manifest.json", "items.safetensors", "tokenizer.json"]) {
    const asked: (string | undefined)[] = [];
    const fetch = async (url: string, init?: RequestInit): Promise<Response> => {
      const name = url.split("/").at(-1)!;
      asked.push(name === stale ? init?.cache : undefined);
      const data = FILES.get(name)!.slice();
      if (name === stale && init?.cache !== "reload") {
        data[data.length - 2]! ^= 1;
      }
      return new Response(data);
    };
    const bundle = await Bundle.open(new FetchSource("b", {}, fetch));
    assert.equal((await bundle.read("tokenizer.json")).length, 2760);
    assert.equal(asked.filter((cache) => cache === "reload").length, 1);
  }
});

test("A file that was altered is refused when it is read.", async () => {
  const files = new Map(FILES);
  const tokenizer = files.get("tokenizer.json")!.slice();
  tokenizer[100]! ^= 1;
  files.set("tokenizer.json", tokenizer);
  const bundle = await Bundle.open(new MemorySource(files));
  await assert.rejects(bundle.read("tokenizer.json"), /tokenizer.json: expected the SHA-256/);
  await assert.rejects(Bundle.open(new MemorySource(files), true), /the file was altered/);
});

test("Tensors are the same wherever their bytes begin in memory.", () => {
  const data = FILES.get("items.safetensors")!;
  const expected = viewTensors("items.safetensors", data);
  for (let shift = 0; shift < 8; shift++) {
    const moved = new Uint8Array(data.length + shift);
    moved.set(data, shift);
    const found = viewTensors("items.safetensors", moved.subarray(shift));
    assert.deepEqual(found, expected);
  }
});

test("Hashes are those of Node's crypto, for every length around whole blocks.", async () => {
  for (let length = 0; length < 300; length++) {
    const data = new Uint8Array(randomBytes(length));
    const expected = createHash("sha256").update(data).digest("hex");
    assert.equal(Buffer.from(sha256(data)).toString("hex"), expected);
    assert.equal(await fileHash(data), expected);
  }
});
