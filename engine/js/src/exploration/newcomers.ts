/**
 * The quota of slots that newcomers get, whatever the scheme that draws the other slots.
 *
 * Each slot behind the guarded ones shows a newcomer with probability η = ε ρ, by its own Bernoulli
 * trial, as long as one of the N newcomers is left: one of those, each as likely. The other slots
 * are the scheme's draw of a shorter slate, from the pool as ever, with ε' in the place of ε. A
 * slot of a scheme does not depend on the slots after it, so with v newcomers above slot k
 *
 *     conditional_k = η / (N - v)                             for a newcomer
 *     conditional_k = (1 - η 1[v < N]) conditional'_k-v(j)    for rank j of the pool
 *     marginal_k    = P(v < N) η / N                          for a newcomer, by symmetry
 *     marginal_k    = Σ_v P(v) (1 - η 1[v < N]) marginal'_k-v(j)
 */

import type { Exploration } from "../bundle/manifest.js";
import { type Draw, emptyDraw, pushSlot, type Uniforms } from "./draw.js";

/** The marginals of a slate of K slots with a quota for newcomers. */
export interface Marginals {
  /** [K, K + 1]: that a slot shows rank 0 … K - 1 of the pool, and any one later rank. */
  readonly byRank: readonly Float64Array[];

  /** [K]: that a slot shows a newcomer, whichever. */
  readonly newcomer: readonly number[];
}

/** Returns η, the probability that a slot behind the guarded ones shows a newcomer. */
export function rate(plan: Exploration): number {
  return plan.epsilon * plan.newcomers;
}

/**
 * Returns the plan of the slots that are not newcomers'.
 *
 * Its ε' = (ε - η) / (1 - η) keeps the share of slots that explore: η + (1 - η) ε' = ε.
 */
export function regular(plan: Exploration): Exploration {
  const eta = rate(plan);
  // With η = 1 such slots come after the last newcomer only: they explore, as all do with ε = 1.
  const epsilon = eta === 1.0 ? plan.epsilon : (plan.epsilon - eta) / (1.0 - eta);
  return { ...plan, epsilon: Math.max(epsilon, 0.0) };
}

/**
 * Returns for each slot which of the newcomers 0 … N - 1 it shows, null for none.
 *
 * A block's two uniforms decide whether the slot shows a newcomer, and pick one.
 */
export function choose(
  eta: number,
  slots: number,
  newcomers: number,
  uniforms: Uniforms,
): (number | null)[] {
  // A Fisher-Yates shuffle of 0 … N - 1 that stores only what it moved: O(slots), whatever N is.
  const moved = new Map<number, number>();
  let left = newcomers;
  const chosen: (number | null)[] = [];
  for (let slot = 0; slot < slots; slot++) {
    if (left === 0 || uniforms[2 * slot]! >= eta) {
      chosen.push(null);
      continue;
    }
    const place = Math.floor(uniforms[2 * slot + 1]! * left);
    chosen.push(moved.get(place) ?? place);
    left -= 1;
    moved.set(place, moved.get(left) ?? left);
  }
  return chosen;
}

/** What the slots of a slate were drawn from, beside the scheme's own draw. */
export interface Quota {
  /** Which newcomer each slot shows, null for none. */
  readonly chosen: readonly (number | null)[];

  readonly eta: number;

  /** The number of items of the pool, and of newcomers. */
  readonly pool: number;
  readonly newcomers: number;

  /** Null for long slates, and for schemes without a closed form. */
  readonly marginals: Marginals | null;
}

/**
 * Returns the slate of the chosen newcomers and, in the other slots, a scheme's draw.
 *
 * Newcomer i gets the rank `pool` + i: no rank of the pool.
 */
export function interleave(drawn: Draw, quota: Quota): Draw {
  const { chosen, eta, pool, newcomers, marginals } = quota;
  const slate = emptyDraw();
  let left = newcomers;
  let next = 0; // of the slots that the scheme drew
  chosen.forEach((newcomer, slot) => {
    if (newcomer === null) {
      const rank = drawn.ranks[next]!;
      const conditional = drawn.conditional[next]! * (left > 0 ? 1.0 - eta : 1.0);
      const marginal = marginals?.byRank[slot]![Math.min(rank, chosen.length)] ?? null;
      pushSlot(slate, rank, drawn.explored[next]!, conditional, marginal);
      next += 1;
    } else {
      const marginal = marginals === null ? null : marginals.newcomer[slot]! / newcomers;
      pushSlot(slate, pool + newcomer, true, eta / left, marginal);
      left -= 1;
    }
  });
  return slate;
}

/**
 * Returns the marginals of K slots, given the scheme's own [K, K + 1] of each rank.
 *
 * The scheme's rows are weighted by the distribution of v, the newcomers above a slot.
 */
export function mix(byRank: readonly Float64Array[], eta: number, newcomers: number): Marginals {
  const slots = byRank.length;
  const mixed: Float64Array[] = [];
  const newcomer: number[] = [];
  let above = new Float64Array(slots + 1); // P(v)
  above[0] = 1.0;
  for (let slot = 0; slot < slots; slot++) {
    const oneMore = above.map((probability, v) => (v < newcomers ? probability * eta : 0.0));
    const none = above.map((probability, v) => probability - oneMore[v]!);
    const row = new Float64Array(slots + 1);
    for (let v = 0; v <= slot; v++) {
      const regularRow = byRank[slot - v]!;
      for (let rank = 0; rank <= slots; rank++) {
        row[rank] = row[rank]! + none[v]! * regularRow[rank]!;
      }
    }
    // Sums of products may round to a little over 1, which the wire does not take.
    mixed.push(row.map((probability) => Math.min(probability, 1.0)));
    newcomer.push(oneMore.reduce((sum, probability) => sum + probability, 0.0));
    above = none.map((probability, v) => probability + (v > 0 ? oneMore[v - 1]! : 0.0));
  }
  return { byRank: mixed, newcomer };
}
