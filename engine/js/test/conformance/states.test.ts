import assert from "node:assert/strict";
import { test } from "node:test";

import { RowMask } from "../../src/kernels/rowMask.js";
import { loadCases, unpacked } from "../support/conformance.js";
import { KERNELS } from "../support/kernels.js";
import { scorersOf } from "../support/slates.js";

for (const kernels of KERNELS) {
  test(`States and user vectors have the bits of Python's, by ${kernels.source}.`, async () => {
    const file = loadCases("states");
    const scorers = await scorersOf(file, kernels);
    assert.ok(file.cases.length >= 900);
    for (const each of file.cases) {
      const scorer = scorers.get(each["bundle"])!;
      const { userModel } = scorer;
      let state = userModel.initialState();
      for (const [item, kind] of each["events"]) {
        const row = scorer.find(item);
        state = row === null ? state : userModel.step(state, scorer.vector(row), kind);
      }
      const context = each["context"] === undefined ? undefined : unpacked(each["context"]);
      assert.deepEqual(state, unpacked(each["state"]), JSON.stringify(each));
      assert.deepEqual(userModel.userVector(state, context), unpacked(each["user"]));
    }
  });

  test(`Searches return the rows and the bits of Python's, by ${kernels.source}.`, async () => {
    const file = loadCases("search");
    const scorers = await scorersOf(file, kernels);
    for (const each of file.cases) {
      const { index } = scorers.get(each["bundle"])!;
      const hidden = new Uint8Array(index.n);
      for (const row of each["hidden"] ?? []) {
        hidden[row] = 1;
      }
      const mask = each["hidden"] === undefined ? undefined : new RowMask(hidden);
      const excluded = Int32Array.from(each["excluded"] ?? []);
      const found = index.top(unpacked(each["user"]), each["k"], excluded, mask);
      const { rows, scores, eligible } = each;
      assert.deepEqual(
        { rows: [...found.rows], scores: [...found.scores], eligible: found.eligible },
        { rows, scores, eligible },
        JSON.stringify(each),
      );
    }
  });

  test(`Uniforms are Python's, by ${kernels.source}.`, () => {
    for (const each of loadCases("uniforms").cases) {
      const expected: number[] = each["uniforms"].flat();
      assert.deepEqual([...kernels.uniforms(each["decision"], expected.length / 2)], expected);
    }
  });
}
