/**
 * The exploration schemes: draw slates of ranks with exact propensities.
 *
 * An item is its rank j = 0, 1, … in the greedy order (score descending, then row ascending) of the
 * pool, the M best items; newcomer i of the quota (`exploration/newcomers`) has the rank M + i.
 * Randomness comes in as uniforms.
 */

import type { Exploration } from "../bundle/manifest.js";
import { LruCache } from "../runtime/lruCache.js";
import { type Draw, type Uniforms, withFixedPrefix } from "./draw.js";
import * as mixture from "./mixture.js";
import * as newcomers from "./newcomers.js";
import * as plackettLuce from "./plackettLuce.js";
import * as sequential from "./sequential.js";

const marginalsCache = new LruCache<string, newcomers.Marginals>(64);

/**
 * Draws `slots` ranks by the plan's scheme, from a pool with scores [M], best first.
 *
 * `uniforms` are as many blocks of two as `countUniforms` returns. The first `guarded` slots show
 * the best items; the others draw from the rest of the pool, and by the plan's quota from
 * `nNewcomers` items outside it. Throws `RangeError` unless 0 <= slots <= M.
 */
export function draw(
  plan: Exploration,
  slots: number,
  scores: Float64Array,
  uniforms: Uniforms,
  nNewcomers = 0,
): Draw {
  if (!(slots >= 0 && slots <= scores.length)) {
    throw new RangeError(
      `expected 0 <= slots <= pool, found slots ${slots} and pool ${scores.length}`,
    );
  }
  const fixed = Math.min(plan.guarded, slots);
  const behind = scores.subarray(fixed);
  let drawn: Draw;
  if (slots > fixed && hasQuota(plan, nNewcomers)) {
    const ofQuota = uniforms.subarray(2 * countUniforms(plan, slots, scores.length));
    drawn = drawWithNewcomers(plan, slots - fixed, behind, [uniforms, ofQuota], nNewcomers);
  } else {
    drawn = drawByScheme(plan, slots - fixed, behind, uniforms);
  }
  return fixed > 0 ? withFixedPrefix(drawn, fixed) : drawn;
}

/** Returns whether slots may show one of so many newcomers. */
export function hasQuota(plan: Exploration, nNewcomers: number): boolean {
  return nNewcomers > 0 && newcomers.rate(plan) > 0.0;
}

/**
 * Returns how many pairs of uniforms a draw takes: one per slot, or one per item of the pool; with
 * newcomers one more per slot.
 */
export function countUniforms(
  plan: Exploration,
  slots: number,
  pool: number,
  nNewcomers = 0,
): number {
  const blocks = plan.scheme === "softmax" ? pool : slots;
  return hasQuota(plan, nNewcomers) ? blocks + slots : blocks;
}

/** Returns the plan with exploration switched off: it shows the best items, with certainty. */
export function greedy(plan: Exploration): Exploration {
  return { ...plan, scheme: "sequential", epsilon: 0.0 };
}

function drawByScheme(
  plan: Exploration,
  slots: number,
  scores: Float64Array,
  uniforms: Uniforms,
): Draw {
  switch (plan.scheme) {
    case "sequential":
      return sequential.draw(slots, scores.length, plan.epsilon, uniforms);
    case "mixture":
      return mixture.draw(slots, scores.length, plan.epsilon, uniforms);
    case "softmax":
      return plackettLuce.draw(slots, scores, plan.temperature, uniforms);
  }
}

/** Draws slots of which none is guarded, by the scheme's uniforms and those of the quota. */
function drawWithNewcomers(
  plan: Exploration,
  slots: number,
  scores: Float64Array,
  uniforms: readonly [Uniforms, Uniforms],
  nNewcomers: number,
): Draw {
  const pool = scores.length;
  const eta = newcomers.rate(plan);
  const chosen = newcomers.choose(eta, slots, nNewcomers, uniforms[1]);
  const regularPlan = newcomers.regular(plan);
  const regularSlots = chosen.filter((newcomer) => newcomer === null).length;
  const drawn = drawByScheme(regularPlan, regularSlots, scores, uniforms[0]);
  // As many newcomers as slots are never used up, nor are more.
  const marginals = marginalsOf(regularPlan, slots, pool, eta, Math.min(nNewcomers, slots));
  return newcomers.interleave(drawn, { chosen, eta, pool, newcomers: nNewcomers, marginals });
}

/** Returns the marginals of slates with newcomers; null for long ones and under `softmax`. */
function marginalsOf(
  plan: Exploration,
  slots: number,
  pool: number,
  eta: number,
  nNewcomers: number,
): newcomers.Marginals | null {
  if (slots > sequential.MAX_MARGINAL_SLOTS || plan.scheme === "softmax") {
    return null;
  }
  const scheme = plan.scheme === "sequential" ? sequential : mixture;
  const key = `${plan.scheme} ${slots} ${pool} ${plan.epsilon} ${eta} ${nNewcomers}`;
  return marginalsCache.getOrMake(key, () =>
    newcomers.mix(scheme.marginalsByRank(slots, pool, plan.epsilon), eta, nNewcomers),
  );
}
