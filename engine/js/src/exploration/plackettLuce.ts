/**
 * Scheme `softmax`: each slot is a softmax of score / temperature over what remains.
 *
 * Such slates follow the Plackett-Luce model; they are drawn at once by the Gumbel top-k trick
 * (Kool, van Hoof and Welling 2019, arXiv:1903.06059): the K largest of
 * score / temperature - log(-log u), in order. A slot's marginal is a sum over all sets of items
 * before it, without a closed form, and is not returned.
 */

import { type Draw, emptyDraw, pushSlot, type Uniforms } from "./draw.js";

/**
 * Temperatures below the best score; lower scores count as this far, so that no probability
 * vanishes.
 */
export const MAX_DISTANCE = 300.0;

const SMALLEST = 2 ** -54; // stands for the uniform 0, whose logarithm is not finite

/** Draws `slots` ranks for scores [M], best first; rank j takes the first uniform of block j. */
export function draw(
  slots: number,
  scores: Float64Array,
  temperature: number,
  uniforms: Uniforms,
): Draw {
  const drawn = emptyDraw();
  if (slots === 0) {
    return drawn;
  }
  const logits = scores.map((score) =>
    Math.max((score - scores[0]!) / temperature, -MAX_DISTANCE),
  );
  const keys = logits.map((logit, rank) => {
    const noise = Math.max(uniforms[2 * rank]!, SMALLEST);
    return Math.log(-Math.log(noise)) - logit;
  });
  const order = Array.from(keys.keys()).sort((a, b) => keys[a]! - keys[b]!);
  const weights = order.map((rank) => Math.exp(logits[rank]!));
  const remaining = sumsFromTheEnd(weights);
  const taken = new Set<number>();
  let bestLeft = 0;
  for (const rank of order.slice(0, slots)) {
    const slot = drawn.ranks.length;
    pushSlot(drawn, rank, rank !== bestLeft, weights[slot]! / remaining[slot]!, null);
    taken.add(rank);
    while (taken.has(bestLeft)) {
      bestLeft += 1;
    }
  }
  return drawn;
}

/** Returns each sum of a number and all after it: nothing is subtracted, so nothing cancels. */
function sumsFromTheEnd(weights: readonly number[]): Float64Array {
  const sums = new Float64Array(weights.length);
  let sum = 0.0;
  for (let i = weights.length - 1; i >= 0; i--) {
    sum += weights[i]!;
    sums[i] = sum;
  }
  return sums;
}
