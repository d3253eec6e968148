import assert from "node:assert/strict";
import { test } from "node:test";

import { isPoolShaped } from "../../src/decide.js";
import type { RecommendRequest } from "../../src/decision.js";
import type { KernelSet } from "../../src/kernels/kernelSet.js";
import { NO_CONTEXT } from "../../src/ranking/contexts.js";
import { type Case, loadCases } from "../support/conformance.js";
import { KERNELS } from "../support/kernels.js";
import { NAIVE_KERNELS } from "../support/naiveKernels.js";
import { assertSlate, decided, scorersOf } from "../support/slates.js";

for (const name of ["slates-sequential", "slates-schemes"]) {
  for (const kernels of [...KERNELS, NAIVE_KERNELS]) {
    testSlates(name, kernels);
  }
}

function testSlates(name: string, kernels: KernelSet): void {
  const kind = kernels === NAIVE_KERNELS ? "naive" : kernels.source;

  test(`Slates and propensities of ${name} are Python's with ${kind} kernels.`, async () => {
    const file = loadCases(name);
    const scorers = await scorersOf(file, kernels);
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
    context: NO_CONTEXT,
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
