/**
 * Scheme `sequential`: each slot explores by its own Bernoulli trial, without replacement.
 *
 * With M items in the pool and R = M - k + 1 of them left at slot k, the slot takes the best one
 * left with probability 1 - ε, else one of the R uniformly.
 */

import { LruCache } from "../runtime/lruCache.js";
import { type Draw, emptyDraw, pushSlot, type Uniforms } from "./draw.js";

/** Longer slates have no marginals: their cost grows with the third power of the slots. */
export const MAX_MARGINAL_SLOTS = 128;

const cache = new LruCache<string, Float64Array[]>(64);

/**
 * Draws `slots` ranks out of `pool`; a block's two uniforms decide to explore and pick.
 *
 * Marginals are null for slates of more than `MAX_MARGINAL_SLOTS` slots. Throws `RangeError` unless
 * 0 <= slots <= pool and 0 <= epsilon <= 1.
 */
export function draw(slots: number, pool: number, epsilon: number, uniforms: Uniforms): Draw {
  check(slots, pool, epsilon);
  const table = slots <= MAX_MARGINAL_SLOTS ? marginalsByRank(slots, pool, epsilon) : null;
  const remaining = Array.from({ length: pool }, (_, rank) => rank);
  const drawn = emptyDraw();
  for (let slot = 0; slot < slots; slot++) {
    const explores = uniforms[2 * slot]! < epsilon;
    const position = explores ? Math.floor(uniforms[2 * slot + 1]! * remaining.length) : 0;
    const other = epsilon / (pool - slot);
    const conditional = position === 0 ? other + (1.0 - epsilon) : other;
    const rank = remaining.splice(position, 1)[0]!;
    const marginal = table === null ? null : table[slot]![Math.min(rank, slots)]!;
    pushSlot(drawn, rank, explores, conditional, marginal);
  }
  return drawn;
}

/**
 * Returns [slots, slots + 1]: the probability that a slot shows rank 0 … slots - 1, and any one
 * later rank. Throws `RangeError` as `draw` does.
 */
export function marginalsByRank(slots: number, pool: number, epsilon: number): Float64Array[] {
  check(slots, pool, epsilon);
  return cache.getOrMake(`${slots} ${pool} ${epsilon}`, () => marginals(slots, pool, epsilon));
}

/**
 * Dynamic programming over u, the number of better-ranked items already taken, while the item
 * itself is not: then k - u worse-ranked ones are taken. A later rank can only be reached by
 * exploring, and has a closed form.
 */
function marginals(slots: number, pool: number, epsilon: number): Float64Array[] {
  const table = Array.from({ length: slots }, () => new Float64Array(slots + 1));
  const greedy = 1.0 - epsilon;
  for (let rank = 0; rank < slots; rank++) {
    // [u]: the probability that u better ranks are taken and the rank itself is not
    const taken = new Float64Array(slots + 2);
    taken[0] = 1.0;
    for (let slot = 0; slot < slots; slot++) {
      const each = epsilon / (pool - slot); // the probability of any item by exploring
      let shown = 0.0;
      let before = 0.0; // what u - 1 better ranks become by one more
      for (let u = 0; u <= slot; u++) {
        const current = taken[u]!;
        shown += current * (each + (u === rank ? greedy : 0.0));
        const toBetter = current * (each * Math.max(rank - u, 0) + (u < rank ? greedy : 0.0));
        const toWorse = current * (each * Math.max(pool - 1 - rank - (slot - u), 0));
        taken[u] = toWorse + before;
        before = toBetter;
      }
      taken[slot + 1] = before;
      table[slot]![rank] = shown;
    }
  }

  let left = 1.0; // the probability that a given later rank is not taken yet
  for (let slot = 0; slot < slots; slot++) {
    const remaining = pool - slot;
    table[slot]![slots] = (left * epsilon) / remaining;
    left *= 1.0 - epsilon / remaining;
  }
  return table;
}

function check(slots: number, pool: number, epsilon: number): void {
  if (!(slots >= 0 && slots <= pool)) {
    throw new RangeError(`expected 0 <= slots <= pool, found slots ${slots} and pool ${pool}`);
  }
  if (!(epsilon >= 0 && epsilon <= 1)) {
    throw new RangeError(`expected an epsilon in [0, 1], found ${epsilon}`);
  }
}
