import assert from "node:assert/strict";
import { test } from "node:test";

import { decide, explain } from "../../src/decide.js";
import { plainKernels } from "../../src/kernels/plainKernels.js";
import type { Scorer } from "../../src/ranking/scorer.js";
import { explainItem } from "../../src/reasons/explainItem.js";
import { type Case, loadCases } from "../support/conformance.js";
import { requestOf } from "../support/requests.js";
import { scorersOf } from "../support/slates.js";

const file = loadCases("reasons");
const scorers = await scorersOf(file, plainKernels);

/** Fields that the cases leave out. */
const LEFT_OUT = new Set(["decision", "words", "contextEffect"]);

/** Returns a value with the names of its fields as Python has them, but for those of attributes. */
function named(value: unknown, isRoot = true): unknown {
  if (Array.isArray(value)) {
    return value.map((each) => named(each, false));
  }
  if (typeof value !== "object" || value === null) {
    return value;
  }
  const entries = Object.entries(value)
    .filter(([name]) => !isRoot || !LEFT_OUT.has(name))
    .map(([name, each]) => [snakeCase(name), name === "where" ? each : named(each, false)]);
  return Object.fromEntries(entries);
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** Asserts that two values are equal, numbers of some fields within the file's tolerance. */
function assertEqual(found: unknown, expected: unknown, field: string, about: string): void {
  const tolerance = file.tolerance[field];
  if (tolerance !== undefined && typeof found === "number" && typeof expected === "number") {
    assert.ok(Math.abs(found - expected) <= tolerance, `${field}: ${found} ${expected}: ${about}`);
  } else if (typeof found === "object" && found !== null && expected !== null) {
    assert.deepEqual(Object.keys(found).sort(), Object.keys(expected as object).sort(), about);
    for (const [name, value] of Object.entries(found)) {
      const inside = Array.isArray(found) ? field : name;
      assertEqual(value, (expected as Case)[name], inside, about);
    }
  } else {
    assert.equal(found, expected, `${field}: ${about}`);
  }
}

function stateAfter(scorer: Scorer, events: readonly [string, string][]): Float32Array {
  let state = scorer.userModel.initialState();
  for (const [item, kind] of events) {
    state = scorer.userModel.step(state, scorer.vector(scorer.find(item)!), kind);
  }
  return state;
}

test("Reasons are those of Python, their sentences letter by letter.", async () => {
  assert.ok(file.cases.length > 90);
  for (const each of file.cases) {
    const scorer = scorers.get(each["bundle"])!;
    const state = stateAfter(scorer, each["events"]);
    const subject = {
      vector: scorer.userModel.userVector(state),
      pseudonym: "f".repeat(32),
    };
    const plan = scorer.bundle.manifest.exploration;
    const record = decide(scorer, subject, plan, requestOf(each["request"]), each["decision"]);
    assert.deepEqual(explain(record).greedy, each["greedy"]);
    const history = { state, steps: each["events"], events: each["events"].length };
    const shown = record.slate.items[each["slot"]]!;
    const reasons = await explainItem({ record, history, context: null }, shown.id);
    assertEqual(named(reasons), each["reasons"], "", JSON.stringify(each).slice(0, 900));
  }
});
