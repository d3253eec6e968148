/** `npm run bench`: the time of one recommendation, by size and kernels, as a line of JSON each. */

import { Bundle } from "../src/bundle/bundle.js";
import { Engine } from "../src/engine.js";
import type { KernelSet } from "../src/kernels/kernelSet.js";
import { loadKernels } from "../src/kernels/loadKernels.js";
import { syntheticBundle } from "./support/syntheticBundle.js";

const SIZES: readonly [number, number][] = [
  [1_000, 64],
  [10_000, 64],
  [100_000, 64],
];
const CALLS = 1000;

for (const [n, d] of SIZES) {
  const source = syntheticBundle(n, d);
  for (const kernels of [await loadKernels(), await loadKernels("plain")]) {
    const started = performance.now();
    const engine = await Engine.open(source, { kernels });
    const openMs = performance.now() - started;
    const calls = kernels.source === "plain" && n * d > 1e6 ? CALLS / 20 : CALLS;
    const figures = { n, d, kernels: kernels.source, ...(await times(engine, calls)) };
    const search = await searchMs(source, kernels, calls);
    console.log(JSON.stringify({ ...figures, searchMs: search, openMs: rounded(openMs) }));
  }
}

/** Returns the median and the 99th percentile of calls, and of those with 200 excluded ids. */
async function times(engine: Engine, calls: number): Promise<Record<string, number>> {
  const exclude = Array.from({ length: 200 }, (_, row) => `item-${row}`);
  for (let user = 0; user < 100; user++) {
    await engine.observe(`user-${user}`, `item-${user}`, "like");
  }
  const plain: number[] = [];
  const excluding: number[] = [];
  for (let i = -calls / 10; i < calls; i++) {
    const user = `user-${(i + calls) % 100}`;
    const first = performance.now();
    await engine.recommend({ user, k: 10 });
    const second = performance.now();
    await engine.recommend({ user, k: 10, exclude });
    const third = performance.now();
    if (i >= 0) {
      plain.push(second - first);
      excluding.push(third - second);
    }
  }
  return {
    p50: quantile(plain, 0.5),
    p99: quantile(plain, 0.99),
    excluding200P50: quantile(excluding, 0.5),
  };
}

/** Returns the median of the search alone, of the 50 best. */
async function searchMs(
  source: ReturnType<typeof syntheticBundle>,
  kernels: KernelSet,
  calls: number,
): Promise<number> {
  const bundle = await Bundle.open(source);
  const { dim: d } = bundle.manifest.sizes;
  const index = kernels.makeIndex({ ...bundle.items, d });
  const query = Float32Array.from({ length: d }, (_, i) => Math.sin(i));
  const measured: number[] = [];
  for (let i = 0; i < calls; i++) {
    const started = performance.now();
    index.top(query, 50);
    measured.push(performance.now() - started);
  }
  index.release();
  return quantile(measured, 0.5);
}

function quantile(numbers: readonly number[], share: number): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return rounded(sorted[Math.floor(share * (sorted.length - 1))]!);
}

function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
