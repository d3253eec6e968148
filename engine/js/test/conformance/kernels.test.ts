import assert from "node:assert/strict";
import { test } from "node:test";

import { loadKernels } from "../../src/kernels/loadKernels.js";
import { plainKernels } from "../../src/kernels/plainKernels.js";
import { RowMask } from "../../src/kernels/rowMask.js";
import { Scorer } from "../../src/ranking/scorer.js";
import { loadCases, unpacked } from "../support/conformance.js";
import { scorersOf } from "../support/slates.js";

for (const kernels of [await loadKernels(), plainKernels]) {
  const where = kernels.source === "wasm" ? "WebAssembly" : "plain JavaScript";

  test(`Uniforms in ${where} are Python's.`, () => {
    for (const each of loadCases("uniforms").cases) {
      const found = [...kernels.uniforms(each["decision"], each["uniforms"].length)];
      assert.deepEqual(found, each["uniforms"].flat());
    }
  });

  test(`Searches in ${where} have Python's rows and every bit of its scores.`, async () => {
    const file = loadCases("search");
    const scorers = await scorersOf(file, kernels);
    for (const each of file.cases) {
      const { index } = scorers.get(each["bundle"])!;
      const excluded = Int32Array.from(each["excluded"] ?? []);
      const mask = maskOf(index.n, each["hidden"]);
      const found = index.top(unpacked(each["user"]), each["k"], excluded, mask);
      const { rows, scores, eligible } = each;
      const answer = { rows: [...found.rows], scores: [...found.scores], eligible: found.eligible };
      assert.deepEqual(answer, { rows, scores, eligible }, JSON.stringify(each));
    }
  });

  test(`States and user vectors in ${where} have every bit of Python's.`, async () => {
    const file = loadCases("states");
    const scorers = await scorersOf(file, kernels);
    for (const each of file.cases) {
      const scorer = scorers.get(each["bundle"])!;
      const state = replayed(scorer, each["events"]);
      const context = each["context"] === undefined ? undefined : unpacked(each["context"]);
      const user = scorer.userModel.userVector(state, context);
      assert.deepEqual(state, unpacked(each["state"]), JSON.stringify(each));
      assert.deepEqual(user, unpacked(each["user"]), JSON.stringify(each));
    }
  });
}

function maskOf(n: number, hidden: readonly number[] | undefined): RowMask | undefined {
  if (hidden === undefined) return undefined;
  const flags = new Uint8Array(n);
  for (const row of hidden) flags[row] = 1;
  return new RowMask(flags);
}

function replayed(scorer: Scorer, events: readonly (readonly [string, string])[]): Float32Array {
  let state = scorer.userModel.initialState();
  for (const [item, kind] of events) {
    const row = scorer.find(item);
    if (row !== null) state = scorer.userModel.step(state, scorer.vector(row), kind);
  }
  return state;
}
