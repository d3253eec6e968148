import assert from "node:assert/strict";
import { test } from "node:test";

import { FetchSource } from "../src/bundle/source.js";
import { Engine } from "../src/engine.js";
import { decode } from "../src/events/codec.js";
import { loadKernels } from "../src/kernels/loadKernels.js";
import { readLocalFile, WASM_URL } from "../src/kernels/noWasmFile.js";
import { KeyValueStorage } from "../src/outbox/keyValueStorage.js";
import { onnxRuntimeWeb } from "../src/ranking/noOnnxRuntimeWeb.js";
import { TINY } from "./support/bundles.js";
import { FakeClock, fakeEntropy, rawFrame, verdicts } from "./support/fakes.js";
import { FakeStore } from "./support/fakeStore.js";

/** What a browser has and React Native has not. */
const MISSING = [
  "WebAssembly", "navigator", "indexedDB", "crypto", "BroadcastChannel", "CompressionStream",
  "FinalizationRegistry", "location", "document", "Blob",
];

/** Runs an action without them. */
async function asInReactNative<T>(action: () => Promise<T>): Promise<T> {
  const before = MISSING.map((name) => Object.getOwnPropertyDescriptor(globalThis, name));
  MISSING.forEach((name) => Reflect.deleteProperty(globalThis, name));
  try {
    return await action();
  } finally {
    MISSING.forEach((name, i) => before[i] && Object.defineProperty(globalThis, name, before[i]));
  }
}

/** Answers each batch of events with `ok`, in a response without a stream. */
function fakeFetch(received: string[]): typeof fetch {
  return (async (_url: string, { body }: { body: Uint8Array }) => {
    const lines = rawFrame(body).split("\n");
    received.push(...lines);
    const { status, body: answered } = verdicts(lines.map(decode), "ok");
    return { status, headers: { get: () => null }, text: async () => answered };
  }) as unknown as typeof fetch;
}

test("Without anything of a browser slates are those of WebAssembly, bit for bit.", async () => {
  const options = () => ({ clock: new FakeClock(), entropy: fakeEntropy(3) });
  const slateOf = async (engine: Engine) => {
    await engine.observe("ada", "five-children-and-it", "like");
    return (await engine.recommend({ user: "ada", k: 20, atMost: { author: 1 } })).toJSON();
  };
  const kernels = await loadKernels();
  assert.equal(kernels.source, "wasm");
  const expected = await slateOf(await Engine.open(TINY, { ...options(), kernels }));
  await asInReactNative(async () => {
    assert.equal((await loadKernels(WASM_URL)).source, "plain");
    assert.deepEqual(await slateOf(await Engine.open(TINY, options())), expected);
  });
});

test("Rewards are stored by key, survive the process, and reach the collector once.", async () => {
  const store = new FakeStore();
  const received: string[] = [];
  const { fetch } = globalThis;
  globalThis.fetch = fakeFetch(received);
  const entropy = fakeEntropy(4);
  await asInReactNative(async () => {
    const first = await Engine.open(TINY, { state: new KeyValueStorage(store), entropy });
    const slate = await first.recommend({ user: "ada", k: 3 });
    assert.equal((await first.reward(slate, slate.items[0]!, 1)).stored, true);
    // Not closed: the system has ended it.

    const collector = "https://rewards.example/v1";
    const state = new KeyValueStorage(new FakeStore(store.values));
    const again = await Engine.open(TINY, { state, collector, entropy });
    assert.equal(again.storageFault, null);
    assert.equal(await again.flush(), true);
    await again.close();
    const events = received.map(decode);
    assert.deepEqual(events.map(({ type }) => type), ["decision", "outcome"]);
    assert.equal(events[0]!.id, slate.decision);
  }).finally(() => (globalThis.fetch = fetch));
});

test("What the platform lacks and the app must bring is said in one sentence.", async () => {
  await asInReactNative(async () => {
    const state = new KeyValueStorage(new FakeStore());
    await assert.rejects(Engine.open(TINY, { state }), /pass `entropy`/);
    const nameless = await Engine.open(TINY, { state: "shop", entropy: fakeEntropy(5) });
    assert.match(nameless.storageFault ?? "", /IndexedDB/);
    await assert.rejects(onnxRuntimeWeb(), /onnxEncoder\(ort\)/);
    assert.throws(() => readLocalFile(new URL("file:///sanderling.wasm")), /pass its bytes/);
  });
});

test("A bundle is read by a fetch that knows buffers and no streams.", async () => {
  const fetch = async (url: string) => {
    const bytes = await TINY.read(url.split("/").at(-1)!);
    const arrayBuffer = async () => bytes!.slice().buffer;
    return { ok: bytes !== null, status: bytes === null ? 404 : 200, arrayBuffer };
  };
  await asInReactNative(async () => {
    const source = new FetchSource("https://shop.example/bundle", {}, fetch as never);
    const options = { verify: true, encoder: onnxRuntimeWeb, entropy: fakeEntropy(6) };
    const engine = await Engine.open(source, options);
    assert.equal((await engine.recommend({ user: "ada" })).length, 10);
  });
});
