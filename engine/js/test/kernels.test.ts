import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import type { Int8Table, KernelSet } from "../src/kernels/kernelSet.js";
import { loadKernels } from "../src/kernels/loadKernels.js";
import { plainKernels } from "../src/kernels/plainKernels.js";
import { RowMask } from "../src/kernels/rowMask.js";
import { WASM_URL } from "../src/kernels/wasmFile.js";
import { WasmKernels } from "../src/kernels/wasmKernels.js";
import { WasmMemory } from "../src/kernels/wasmMemory.js";

const sets: KernelSet[] = [await loadKernels(), plainKernels];

/** Returns a table of n rows that follow from their numbers. */
function table(n: number, d: number): Int8Table {
  return {
    rows: Int8Array.from({ length: n * d }, (_, i) => ((i * 7919) % 255) - 127),
    scale: new Float32Array(n).fill(0.5),
    bias: Float32Array.from({ length: n }, (_, i) => (i % 3) / 4),
    d,
  };
}

test("Memory that was taken back is shared out again, joined with what lies beside it.", () => {
  const memory = new WasmMemory(new WebAssembly.Memory({ initial: 1 }), 1000);
  const starts = [100, 200, 300].map((size) => memory.allocate(size));
  assert.deepEqual(starts, [1024, 1152, 1408]);
  memory.release(starts[0]!);
  memory.release(starts[1]!);
  assert.equal(memory.allocate(384), 1024);
  assert.equal(memory.allocate(1), 1728);
});

test("Memory grows when it is used up, and its views follow.", () => {
  const memory = new WasmMemory(new WebAssembly.Memory({ initial: 1 }), 0);
  const before = memory.bytes.length;
  const start = memory.copy(new Float32Array(100_000).fill(3));
  assert.ok(memory.bytes.length > before);
  assert.equal(memory.floats[start / 4 + 99_999], 3);
});

test("Memory that the browser refuses is a RangeError that says how much was missing.", () => {
  const memory = new WasmMemory(new WebAssembly.Memory({ initial: 1, maximum: 2 }), 0);
  assert.throws(() => memory.allocate(1_000_000), /RangeError: the kernels need \d+ more bytes/);
});

test("Indexes made and released a hundred times take no more room than two.", async () => {
  const { instance } = await WebAssembly.instantiate(await readFile(WASM_URL));
  const kernels = new WasmKernels(instance);
  const memory = instance.exports["memory"] as WebAssembly.Memory;
  const kept = kernels.makeIndex(table(500, 64));
  const query = new Float32Array(64).fill(1);
  const expected = kept.top(query, 5);
  kernels.makeIndex(table(300, 64)).release();
  const size = memory.buffer.byteLength;
  for (let i = 0; i < 100; i++) kernels.makeIndex(table(300, 64)).release();
  assert.equal(memory.buffer.byteLength, size);
  assert.deepEqual(kept.top(query, 5), expected);
});

test("An index without rows finds nothing.", () => {
  for (const kernels of sets) {
    const index = kernels.makeIndex(table(0, 4));
    const found = index.top(new Float32Array(4), 3);
    assert.deepEqual(found, { rows: new Int32Array(0), scores: new Float64Array(0), eligible: 0 });
  }
});

test("A query, a mask or a table of another size is refused.", () => {
  for (const kernels of sets) {
    const index = kernels.makeIndex(table(10, 4));
    assert.throws(() => index.top(new Float32Array(3), 1), /a query of 4 numbers, found 3/);
    const mask = new RowMask(new Uint8Array(9));
    assert.throws(() => index.top(new Float32Array(4), 1, undefined, mask), /a mask of 10/);
    const short = { ...table(10, 4), bias: new Float32Array(9) };
    assert.throws(() => kernels.makeIndex(short), /expected 10 rows of 4 numbers/);
    for (const wrong of [Number.NaN, 1e13, -1]) {
      const scaled = { ...table(1, 4), scale: Float32Array.of(wrong) };
      assert.throws(() => kernels.makeIndex(scaled), /expected scales of 1e-12 to 1e\+12/);
    }
  }
});

test("A kind that the model does not have is refused, and a decision that is no id.", () => {
  for (const kernels of sets) {
    const model = kernels.makeUserModel({
      "state.input": Float32Array.of(1),
      "state.kind": Float32Array.of(1, 2),
      "state.decay": Float32Array.of(0.5),
      "output.gain": Float32Array.of(1),
      "output.shift": Float32Array.of(0),
      "output.w1": Float32Array.of(1),
      "output.b1": Float32Array.of(0),
      "output.w2": Float32Array.of(1),
      "output.b2": Float32Array.of(0),
      "context.project": Float32Array.of(1),
    });
    const item = Float32Array.of(1);
    assert.ok(model.step(model.initialState(), item, 1)[0]! > 1);
    assert.throws(() => model.step(model.initialState(), item, 2), /expected a number below 2/);
    assert.throws(() => kernels.uniforms("12", 1), /expected 32 hex digits/);
  }
});

test("Without WebAssembly or its vectors, plain JavaScript takes its place.", async (t) => {
  assert.equal((await loadKernels("plain")).source, "plain");
  assert.equal((await loadKernels(Uint8Array.of(0, 97, 115, 109))).source, "plain");
  t.mock.method(WebAssembly, "instantiate", () => {
    throw new WebAssembly.CompileError("refused by the page's policy");
  });
  assert.equal((await loadKernels()).source, "plain");
});

test("The module is read from an address, and a missing one is an error with it.", async () => {
  const bytes = await readFile(WASM_URL);
  const server = createServer((request, response) => {
    response.statusCode = request.url === "/sanderling.wasm" ? 200 : 404;
    response.end(request.url === "/sanderling.wasm" ? bytes : "");
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  assert.equal((await loadKernels(new URL("/sanderling.wasm", base))).source, "wasm");
  await assert.rejects(loadKernels(new URL("/none.wasm", base)), /none\.wasm: .* status 404/);
  server.close();
  server.closeAllConnections();
});
