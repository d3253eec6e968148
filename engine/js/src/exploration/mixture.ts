/**
 * Scheme `mixture`: one Bernoulli trial decides whether the whole slate explores.
 *
 * With M items in the pool and K slots, the slate is the greedy one with probability 1 - ε, else
 * any of the M!/(M - K)! slates, each as likely:
 *
 *     prefix_k = (1 - ε) 1[the first k are greedy] + ε (M - k)! / M!
 *     marginal_k(j) = (1 - ε) 1[j = k] + ε / M
 */

import type { Draw, Uniforms } from "./draw.js";

/**
 * Draws `slots` <= `pool` ranks.
 *
 * The first number of the first block decides whether to explore; the second number of each block
 * picks an item.
 */
export function draw(slots: number, pool: number, epsilon: number, uniforms: Uniforms): Draw {
  const explores = slots > 0 && uniforms[0]! < epsilon;
  const greedy = Array.from({ length: slots }, (_, rank) => rank);
  const ranks = explores ? randomSlate(slots, pool, uniforms) : greedy;
  return {
    ranks,
    explored: ranks.map(() => explores),
    conditional: conditionals(ranks, pool, epsilon),
    marginal: ranks.map((rank, slot) => epsilon / pool + (rank === slot ? 1.0 - epsilon : 0.0)),
  };
}

/** Returns [slots, slots + 1]: the marginals of the ranks 0 … slots - 1 and of any later one. */
export function marginalsByRank(slots: number, pool: number, epsilon: number): Float64Array[] {
  return Array.from({ length: slots }, (_, slot) => {
    const row = new Float64Array(slots + 1).fill(epsilon / pool);
    row[slot] = epsilon / pool + (1.0 - epsilon);
    return row;
  });
}

/** Returns the probability of each rank given those before it. */
function conditionals(ranks: readonly number[], pool: number, epsilon: number): number[] {
  let prefix = 1.0;
  let exploredPrefix = epsilon; // the part of `prefix` that exploring contributes
  let isGreedy = true;
  return ranks.map((rank, slot) => {
    // After the first rank that is not greedy the slate is known to explore. The ratio of prefixes
    // is the same, but underflows on long slates.
    if (!isGreedy) {
      return 1.0 / (pool - slot);
    }
    isGreedy = rank === slot;
    exploredPrefix /= pool - slot;
    const longer = exploredPrefix + (isGreedy ? 1.0 - epsilon : 0.0);
    const conditional = longer / prefix;
    prefix = longer;
    return conditional;
  });
}

function randomSlate(slots: number, pool: number, uniforms: Uniforms): number[] {
  const remaining = Array.from({ length: pool }, (_, rank) => rank);
  const ranks: number[] = [];
  for (let slot = 0; slot < slots; slot++) {
    const place = Math.floor(uniforms[2 * slot + 1]! * remaining.length);
    ranks.push(remaining.splice(place, 1)[0]!);
  }
  return ranks;
}
