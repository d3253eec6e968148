import assert from "node:assert/strict";
import { test } from "node:test";

import { isPoolShaped } from "../../src/decide.js";
import type { RecommendRequest } from "../../src/decision.js";
import { type Case, loadCases } from "../support/conformance.js";
import { NAIVE_KERNELS } from "../support/naiveKernels.js";
import { assertSlate, decided, scorersOf } from "../support/slates.js";

for (const name of ["slates-sequential", "slates-schemes"]) {
  const file = loadCases(name);
  const scorers = await scorersOf(file, NAIVE_KERNELS);

  test(`Slates, draws, scores and propensities of ${name} are Python's.`, () => {
    assert.ok(file.cases.length >= 700);
    for (const each of file.cases) {
      const scorer = scorers.get(each["bundle"])!;
      if (scorer.bundle.manifest.rules !== null) {
        continue;
      }
      const record = decided(file, each, scorer, requestOf(each["request"]));
      assertSlate(file, each, record);
      if (each["slate"].pool_items !== undefined) {
        assert.ok(isPoolShaped(record));
      }
    }
  });
}

function requestOf(given: Case): RecommendRequest {
  return {
    user: "user",
    k: given["k"],
    context: null,
    exclude: given["exclude"] ?? [],
    atMost: new Map(),
    pin: new Map(),
    where: null,
    among: given["among"] ?? null,
    earlier: given["after"] ?? [],
    diversity: 0,
    boost: [],
  };
}
