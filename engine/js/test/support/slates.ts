/** Decides the slates of the conformance set. */

import assert from "node:assert/strict";

import { decide } from "../../src/decide.js";
import type { DecisionRecord, RecommendRequest } from "../../src/decision.js";
import { planOf } from "../../src/exploration/arms.js";
import * as schemes from "../../src/exploration/schemes.js";
import type { KernelSet } from "../../src/kernels/kernelSet.js";
import { Scorer } from "../../src/ranking/scorer.js";
import { type Case, type CaseFile, openBundle, unpacked } from "./conformance.js";

/** Stands for an encoder where no text is read. */
export async function noEncoder(): Promise<never> {
  throw new Error("expected no text to be encoded");
}

/** Returns the scorers of a file's bundles by name. */
export async function scorersOf(
  file: CaseFile,
  kernels: KernelSet,
): Promise<ReadonlyMap<string, Scorer>> {
  const scorers = new Map<string, Scorer>();
  for (const [name, folder] of Object.entries(file.bundles)) {
    scorers.set(name, Scorer.of(await openBundle(folder), kernels, noEncoder));
  }
  return scorers;
}

/** Returns the decision of a case for a request. */
export function decided(
  file: CaseFile,
  each: Case,
  scorer: Scorer,
  request: RecommendRequest,
): DecisionRecord {
  const { manifest } = scorer.bundle;
  const arm = manifest.experiment?.arms.find(({ name }) => name === each["arm"]) ?? null;
  let plan = { ...planOf(manifest, arm), ...each["plan"] };
  if (each["greedy"] === true) {
    plan = schemes.greedy(plan);
  }
  const user = unpacked(file.users[each["bundle"]]![each["user"]]!);
  const vector = arm?.personalized === false ? new Float32Array(user.length) : user;
  const subject = { vector, pseudonym: "fedcba9876543210fedcba9876543210" };
  return { ...decide(scorer, subject, plan, request, each["decision"]), arm };
}

/** Asserts that a slate is what the case says. */
export function assertSlate(file: CaseFile, each: Case, record: DecisionRecord): void {
  const { items, shortage } = record.slate;
  const expected = each["slate"];
  const slotsWith = (mark: "newcomer" | "pinned") =>
    items.filter((item) => item[mark]).map((item) => item.slot);
  const found = {
    items: items.map((item) => item.id),
    scores: items.map((item) => item.score),
    ranks: items.map((item) => item.rank),
    explored: items.map((item) => Number(item.explored)),
    pool: record.candidates.ranking.rows.length,
    eligible: record.slate.eligible,
    newcomer: slotsWith("newcomer"),
    pinned: slotsWith("pinned"),
    shortage: shortage.replace("`atMost`", "`at_most`"),
  };
  const { conditional, marginal, pool_items: _pool, event: _event, ...equal } = expected;
  const about = JSON.stringify(each);
  assert.deepEqual(found, { newcomer: [], pinned: [], shortage: "", ...equal }, about);
  items.forEach((item, slot) => {
    assertNear(item.propensity, conditional[slot], file.tolerance["conditional"]!, about);
    assertNear(item.marginal, marginal[slot], file.tolerance["marginal"]!, about);
  });
}

function assertNear(
  found: number | null,
  expected: number | null,
  tolerance: number,
  about: string,
): void {
  const isNear = found === null || expected === null
    ? found === expected
    : Math.abs(found - expected) <= tolerance;
  assert.ok(isNear, `expected ${expected}, found ${found}: ${about}`);
}
