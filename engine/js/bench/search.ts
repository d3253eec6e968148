/**
 * Exact search by WebAssembly, plain JavaScript and the native kernels, in turns in one run:
 * `npm run bench`. The native ones need the repository's Python environment, or PYTHON.
 */

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import type { Int8Index, KernelSet } from "../src/kernels/kernelSet.js";
import { loadKernels } from "../src/kernels/loadKernels.js";
import { plainKernels } from "../src/kernels/plainKernels.js";

const SIZES = [
  [1_000, 64],
  [10_000, 64],
  [100_000, 64],
] as const;
const K = 10;
const TURNS = 9;
const REPEATS = 200;
const KIND = "avx2";

const PACKAGE = fileURLToPath(new URL("../../", import.meta.url));
const ROOT = join(PACKAGE, "..", "..");

function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

/** Starts the native side; returns a function that asks it, and one that ends it. */
function native(folder: string): [(line: string) => Promise<number>, () => void] {
  const own = join(ROOT, ".venv", "bin", "python");
  const python = process.env["PYTHON"] ?? (existsSync(own) ? own : "python3");
  const script = join(PACKAGE, "bench", "native_search.py");
  const child = spawn(python, [script, folder, KIND], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ask = async (line: string) => {
    child.stdin.write(`${line}\n`);
    const answer = await lines.next();
    if (answer.done === true) throw new Error("the native side ended; is PYTHON set up?");
    return Number(answer.value);
  };
  return [ask, () => child.stdin.end()];
}

/** Returns the processor time of this process in microseconds: others do not count. */
function processorTime(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

/** Returns the mean processor time of a search in microseconds. */
function time(index: Int8Index, queries: Float32Array[], repeats: number): number {
  const start = processorTime();
  for (let i = 0; i < repeats; i++) index.top(queries[i % queries.length]!, K);
  return (processorTime() - start) / repeats;
}

/** Measures one size; returns medians over the turns, in microseconds of processor time. */
async function measure(
  wasm: KernelSet,
  folder: string,
  ask: (line: string) => Promise<number>,
  n: number,
  d: number,
): Promise<Record<string, number>> {
  const packNative = await ask(`${n} ${d} ${K} 0`);
  const read = (name: string) => {
    const bytes = readFileSync(join(folder, `${n}-${d}-${name}`));
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  };
  const table = {
    rows: new Int8Array(read("rows")),
    scale: new Float32Array(read("scale")),
    bias: new Float32Array(read("bias")),
    d,
  };
  const flat = new Float32Array(read("queries"));
  const queries = Array.from({ length: flat.length / d }, (_, i) =>
    flat.slice(i * d, (i + 1) * d),
  );
  wasm.makeIndex(table).release(); // until the browser has compiled it well
  const start = processorTime();
  const compiled = wasm.makeIndex(table);
  const packWasm = processorTime() - start;
  const plain = plainKernels.makeIndex(table);

  const turns: Record<string, number[]> = { native: [], wasm: [], plain: [] };
  time(compiled, queries, 300);
  time(plain, queries, 3);
  for (let turn = 0; turn < TURNS; turn++) {
    turns["native"]!.push(await ask(`${n} ${d} ${K} ${REPEATS}`));
    turns["wasm"]!.push(time(compiled, queries, REPEATS));
    turns["plain"]!.push(time(plain, queries, REPEATS / 40));
  }
  compiled.release();
  const medians = Object.entries(turns).map(([name, times]) => [name, median(times)]);
  return { ...Object.fromEntries(medians), packNative, packWasm };
}

const folder = mkdtempSync(join(tmpdir(), "sanderling-bench-"));
const [ask, end] = native(folder);
try {
  const wasm = await loadKernels();
  for (const [n, d] of SIZES) {
    const us = await measure(wasm, folder, ask, n, d);
    const shown = Object.entries(us).map(([name, value]) => `${name} ${value.toFixed(1)} µs`);
    const slower = (us["wasm"]! / us["native"]!).toFixed(2);
    const faster = (us["plain"]! / us["wasm"]!).toFixed(1);
    console.log(`${n} x ${d}, k = ${K}: ${shown.join(", ")}`);
    console.log(`  wasm ${slower} x native ${KIND}, plain JavaScript ${faster} x wasm`);
  }
} finally {
  end();
  rmSync(folder, { recursive: true });
}
