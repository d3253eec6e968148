/** A bundle of random items, made in memory. */

import { createHash } from "node:crypto";

import { compareHashes, idHash } from "../../src/bundle/idHash.js";
import { MemorySource } from "../../src/bundle/source.js";
import { VERSION } from "../../src/version.js";

const KINDS = ["view", "like", "click"];
const STATE = 64;
const TEXT = 64;
const HIDDEN = 64;

type Data = Int8Array | Int32Array | Uint32Array | Float32Array | BigInt64Array;

/** Returns a bundle of n items with vectors of d dimensions; the same for the same numbers. */
export function syntheticBundle(n: number, d: number): MemorySource {
  const random = generator(n * 31 + d);
  const ids = Array.from({ length: n }, (_, row) => `item-${row}`);
  const lines = ids.map((id, row) => `{"id":"${id}","title":"Item ${row}","year":${row % 99}}\n`);
  const files = new Map<string, Uint8Array>([
    ["encoder.onnx", bytesOf("-")],
    ["tokenizer.json", bytesOf("{}")],
    ["golden.json", bytesOf('{"texts":[],"states":[]}')],
    ["catalog.jsonl", bytesOf(lines.join(""))],
    ["items.safetensors", items(ids, lines, d, random)],
    ["policy.safetensors", policy(d, random)],
  ]);
  files.set("manifest.json", manifest(files, n, d));
  return new MemorySource(files, `${n} items of ${d} dimensions`);
}

function items(
  ids: readonly string[],
  lines: readonly string[],
  d: number,
  random: () => number,
): Uint8Array {
  const n = ids.length;
  const offset = new BigInt64Array(n + 1);
  const hashes = new Uint32Array(2 * n);
  ids.forEach((id, row) => {
    offset[row + 1] = offset[row]! + BigInt(lines[row]!.length);
    hashes.set(idHash(id), 2 * row);
  });
  const order = Int32Array.from(ids.keys()).sort((a, b) => compareHashes(hashes, a, hashes, b));
  const sorted = new Uint32Array(2 * n);
  order.forEach((row, i) => sorted.set(hashes.subarray(2 * row, 2 * row + 2), 2 * i));
  return safetensors({
    rows: ["I8", [n, d], Int8Array.from({ length: n * d }, () => 127 * random() * random())],
    scale: ["F32", [n], Float32Array.from({ length: n }, () => 0.01 + 0.001 * random())],
    bias: ["F32", [n], Float32Array.from({ length: n }, random)],
    offset: ["I64", [n + 1], offset],
    id_hash: ["U64", [n], sorted],
    id_row: ["I32", [n], order],
  });
}

function policy(d: number, random: () => number): Uint8Array {
  const tensor = (...shape: number[]): [string, number[], Float32Array] => {
    const count = shape.reduce((product, side) => product * side, 1);
    const width = shape.at(-1)!;
    return ["F32", shape, Float32Array.from({ length: count }, () => random() / Math.sqrt(width))];
  };
  const decay = new Float32Array(STATE).fill(0.9);
  return safetensors({
    "state.input": tensor(STATE, d),
    "state.kind": tensor(KINDS.length, STATE),
    "state.decay": ["F32", [STATE], decay],
    "output.gain": tensor(STATE),
    "output.shift": tensor(STATE),
    "output.w1": tensor(HIDDEN, STATE),
    "output.b1": tensor(HIDDEN),
    "output.w2": tensor(d, HIDDEN),
    "output.b2": tensor(d),
    "context.project": tensor(d, TEXT),
    "item.project": tensor(d, TEXT),
    "item.bias": tensor(1),
  });
}

function safetensors(tensors: Record<string, [string, number[], Data]>): Uint8Array {
  const header: Record<string, unknown> = {};
  let size = 0;
  for (const [name, [dtype, shape, { byteLength }]] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [size, size + byteLength] };
    size += byteLength;
  }
  const text = JSON.stringify(header);
  const padded = bytesOf(text.padEnd(Math.ceil(text.length / 8) * 8));
  const file = new Uint8Array(8 + padded.length + size);
  new DataView(file.buffer).setBigUint64(0, BigInt(padded.length), true);
  file.set(padded, 8);
  let start = 8 + padded.length;
  for (const [, , data] of Object.values(tensors)) {
    file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), start);
    start += data.byteLength;
  }
  return file;
}

function manifest(files: ReadonlyMap<string, Uint8Array>, n: number, d: number): Uint8Array {
  const entries = Array.from(files, ([name, data]) => {
    const sha256 = createHash("sha256").update(data).digest("hex");
    return [name, { length: data.length, sha256 }];
  });
  const fields = {
    app: "bench",
    release: 1,
    created: 1_750_000_000,
    min_engine: VERSION,
    sizes: { items: n, dim: d, state: STATE, text: TEXT, max_tokens: 64 },
    files: Object.fromEntries(entries),
    exploration: {},
    kinds: KINDS,
    lineage: { parent: 0, log_from: 0, log_to: 0, data_sha256: "0".repeat(64) },
  };
  return bytesOf(JSON.stringify(fields));
}

function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Returns what yields numbers in [-1, 1): a linear congruential generator. */
function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}
