import assert from "node:assert/strict";
import { test } from "node:test";

import type { Exploration } from "../src/bundle/manifest.js";
import * as schemes from "../src/exploration/schemes.js";
import { NAIVE_KERNELS } from "./support/naiveKernels.js";

const PLAN: Exploration = {
  scheme: "sequential",
  epsilon: 0.4,
  pool: 5,
  temperature: 0.7,
  guarded: 0,
  daily: null,
  newcomers: 0.5,
};
const SCORES = Float64Array.of(2, 1.5, 0.25, 0, -1);
const SLOTS = 3;

/** Returns many draws of different decisions. */
function draws(plan: Exploration, newcomers: number, count: number) {
  return Array.from({ length: count }, (_, i) => {
    const decision = (BigInt(i) * 0x9e3779b97f4a7c15n).toString(16).padStart(32, "0").slice(-32);
    const blocks = schemes.countUniforms(plan, SLOTS, SCORES.length, newcomers);
    const uniforms = NAIVE_KERNELS.uniforms(decision, blocks);
    return schemes.draw(plan, SLOTS, SCORES, uniforms, newcomers);
  });
}

for (const scheme of ["sequential", "mixture", "softmax"] as const) {
  for (const [newcomers, guarded] of [[0, 0], [0, 1], [2, 0], [2, 1], [9, 0]] as const) {
    const plan = { ...PLAN, scheme, guarded };
    const name = `${scheme} with ${newcomers} newcomers behind ${guarded} guarded slots`;

    test(`Frequencies of slates are the products of the propensities of ${name}.`, () => {
      const drawn = draws(plan, newcomers, 20_000);
      const seen = new Map<string, { count: number; probability: number }>();
      for (const { ranks, conditional } of drawn) {
        const probability = conditional.reduce((product, each) => product * each, 1);
        const slate = seen.get(ranks.join()) ?? { count: 0, probability };
        slate.count += 1;
        assert.ok(Math.abs(slate.probability - probability) < 1e-15);
        seen.set(ranks.join(), slate);
      }
      for (const [ranks, { count, probability }] of seen) {
        const expected = probability * drawn.length;
        assert.ok(Math.abs(count - expected) < 5.5 * Math.sqrt(expected) + 4, `${ranks}: ${count}`);
      }
    });

    test(`Marginals of ${name} are the sums of the slates' probabilities, where given.`, () => {
      const slates = new Map<string, { probability: number; ranks: number[] }>();
      const marginals = new Map<string, number>();
      for (const { ranks, conditional, marginal } of draws(plan, newcomers, 20_000)) {
        const probability = conditional.reduce((product, each) => product * each, 1);
        slates.set(ranks.join(), { probability, ranks });
        ranks.forEach((rank, slot) => {
          if (marginal[slot] !== null) {
            marginals.set(`${slot} ${rank}`, marginal[slot]!);
          }
        });
      }
      const total = [...slates.values()].reduce((sum, slate) => sum + slate.probability, 0);
      assert.equal(marginals.size > 0, scheme !== "softmax");
      if (newcomers === 9) {
        return; // too many slates for all of them to be drawn
      }
      assert.ok(Math.abs(total - 1) < 0.01, `${total}`);
      for (const [place, marginal] of marginals) {
        const [slot, rank] = place.split(" ").map(Number);
        const having = [...slates.values()].filter(({ ranks }) => ranks[slot!] === rank);
        const sum = having.reduce((all, { probability }) => all + probability, 0);
        assert.ok(Math.abs(sum - marginal) <= 1 - total + 1e-12, `${place}: ${sum} ${marginal}`);
      }
    });
  }
}

test("The share of slots that explore is ε, with newcomers as without.", () => {
  for (const newcomers of [0, 100]) {
    const drawn = draws(PLAN, newcomers, 20_000);
    const explored = drawn.flatMap((slate) => slate.explored).filter(Boolean).length;
    assert.ok(Math.abs(explored / (SLOTS * drawn.length) - PLAN.epsilon) < 0.01);
  }
});

test("More slots than items are refused.", () => {
  assert.throws(() => schemes.draw(PLAN, 6, SCORES, new Float64Array(12)), RangeError);
});
