/**
 * Diverse slates: each slot weighs an item's score against its likeness to the items before it.
 *
 * With the diversity λ an item j of the pool has at a slot the value
 *
 *     (1 - λ) s_j - λ r max_i cos(v_j, v_i)
 *
 * where i runs over the pool's items in the slots above and over all pinned items, and r is the
 * range of the pool's scores, 1 if that is 0: maximal marginal relevance (Carbonell and Goldstein
 * 1998) of scores scaled to [0, 1]. The scheme draws by these values in the place of scores. Which
 * item is the best one left then depends on what was drawn above, so `sequential` and `softmax`
 * have exact conditional propensities and no marginals. The greedy slate depends on no draw, so
 * `mixture`, and slates that do not explore, have both.
 */

import type { Exploration } from "../bundle/manifest.js";
import { type Draw, emptyDraw, pushSlot, type Uniforms } from "./draw.js";
import * as newcomers from "./newcomers.js";
import { MAX_DISTANCE } from "./plackettLuce.js";
import * as schemes from "./schemes.js";

/** What the values of a pool of M items depend on. */
export interface Relevance {
  /** λ, in [0, 1]. */
  readonly diversity: number;

  /** [M], best first. */
  readonly scores: Float64Array;

  /** M vectors [d] of whole numbers (the int8 rows), so that all machines have the same cosines. */
  readonly vectors: readonly ArrayLike<number>[];

  /** Those of the pinned items. */
  readonly pinned: readonly ArrayLike<number>[];
}

/** The values of the items left, while a slate is drawn from the top. */
class Values {
  private readonly norms: readonly number[];
  private readonly worth: Float64Array;
  private readonly cost: number;
  private readonly likeness: Float64Array;
  private hasLikeness = false;

  constructor(private readonly relevance: Relevance) {
    const scores = relevance.scores;
    const span = scores.length > 0 ? scores[0]! - scores[scores.length - 1]! : 0.0;
    this.norms = relevance.vectors.map(norm);
    this.worth = scores.map((score) => (1.0 - relevance.diversity) * score);
    this.cost = relevance.diversity * (span || 1.0);
    this.likeness = new Float64Array(scores.length).fill(-Infinity);
    relevance.pinned.forEach((vector) => this.add(vector, norm(vector)));
  }

  /** Returns the values [M], -Infinity for what was taken. */
  now(): Float64Array {
    if (!this.hasLikeness) {
      return this.worth;
    }
    return this.worth.map((worth, rank) => worth - this.cost * this.likeness[rank]!);
  }

  /** Takes an item: the others are compared with it from now on. */
  take(rank: number): void {
    this.worth[rank] = -Infinity;
    this.add(this.relevance.vectors[rank]!, this.norms[rank]!);
  }

  private add(vector: ArrayLike<number>, ofVector: number): void {
    this.hasLikeness = true;
    this.relevance.vectors.forEach((other, rank) => {
      // Sums of products of whole numbers are exact in doubles, in any order.
      const cosine = dot(other, vector) / (this.norms[rank]! * ofVector);
      this.likeness[rank] = Math.max(this.likeness[rank]!, cosine);
    });
  }
}

/** Returns the dot product of two vectors. */
function dot(first: ArrayLike<number>, second: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < first.length; i++) {
    sum += first[i]! * second[i]!;
  }
  return sum;
}

/** Returns the norm of a vector, 1 for zeros, which are like nothing. */
function norm(vector: ArrayLike<number>): number {
  return Math.sqrt(dot(vector, vector)) || 1.0;
}

/**
 * Draws `slots` ranks of the pool, and of newcomers, as `schemes.draw` does.
 *
 * `uniforms` are as many as there; ranks are by score. Newcomers are drawn whatever they are like,
 * and are not among the items before a slot.
 */
export function drawDiverse(
  plan: Exploration,
  slots: number,
  relevance: Relevance,
  uniforms: Uniforms,
  nNewcomers = 0,
): Draw {
  const pool = relevance.scores.length;
  if (plan.scheme === "mixture" || plan.guarded >= slots || neverExplores(plan)) {
    const order = greedyOrder(relevance, slots);
    const drawn = schemes.draw(plan, slots, relevance.scores, uniforms, nNewcomers);
    return { ...drawn, ranks: drawn.ranks.map((rank) => order[rank] ?? rank) };
  }
  const guarded = greedyOrder(relevance, plan.guarded).slice(0, plan.guarded);
  const left = slots - guarded.length;
  let behind: Draw;
  if (schemes.hasQuota(plan, nNewcomers)) {
    const ofQuota = uniforms.subarray(2 * schemes.countUniforms(plan, slots, pool));
    const eta = newcomers.rate(plan);
    const chosen = newcomers.choose(eta, left, nNewcomers, ofQuota);
    const regularSlots = chosen.filter((newcomer) => newcomer === null).length;
    const regular = newcomers.regular(plan);
    const drawn = drawBehind(guarded, regular, regularSlots, relevance, uniforms);
    const quota = { chosen, eta, pool, newcomers: nNewcomers, marginals: null };
    behind = newcomers.interleave(drawn, quota);
  } else {
    behind = drawBehind(guarded, plan, left, relevance, uniforms);
  }
  const slate = emptyDraw();
  guarded.forEach((rank) => pushSlot(slate, rank, false, 1.0, null));
  behind.ranks.forEach((rank, slot) =>
    pushSlot(slate, rank, behind.explored[slot]!, behind.conditional[slot]!, null),
  );
  return slate;
}

function neverExplores(plan: Exploration): boolean {
  return plan.scheme === "sequential" && plan.epsilon === 0.0;
}

/** Returns all ranks of the pool: the greedy slate, then the others by score. */
function greedyOrder(relevance: Relevance, slots: number): number[] {
  const values = new Values(relevance);
  const slate: number[] = [];
  for (let slot = 0; slot < slots; slot++) {
    const best = bestOf(values.now());
    slate.push(best);
    values.take(best);
  }
  const shown = new Set(slate);
  const others = Array.from(relevance.scores.keys()).filter((rank) => !shown.has(rank));
  return [...slate, ...others];
}

/** Draws `slots` by scheme `sequential` or `softmax` behind the ranks `above`. */
function drawBehind(
  above: readonly number[],
  plan: Exploration,
  slots: number,
  relevance: Relevance,
  uniforms: Uniforms,
): Draw {
  const values = new Values(relevance);
  above.forEach((rank) => values.take(rank));
  const left = Array.from(relevance.scores.keys()).filter((rank) => !above.includes(rank));
  const pick = plan.scheme === "sequential" ? pickSequential : pickSoftmax;
  const drawn = emptyDraw();
  for (let slot = 0; slot < slots; slot++) {
    const pair = uniforms.subarray(2 * slot, 2 * slot + 2);
    const { rank, explored, conditional } = pick(plan, values.now(), left, pair);
    pushSlot(drawn, rank, explored, conditional, null);
    left.splice(left.indexOf(rank), 1);
    values.take(rank);
  }
  return drawn;
}

/** The rank that a slot shows, whether it explored, and its probability. */
interface Pick {
  readonly rank: number;
  readonly explored: boolean;
  readonly conditional: number;
}

function pickSequential(
  plan: Exploration,
  values: Float64Array,
  left: readonly number[],
  uniforms: Uniforms,
): Pick {
  const best = bestOf(values);
  const explored = uniforms[0]! < plan.epsilon;
  const rank = explored ? left[Math.floor(uniforms[1]! * left.length)]! : best;
  const each = plan.epsilon / left.length;
  return { rank, explored, conditional: rank === best ? each + (1.0 - plan.epsilon) : each };
}

function pickSoftmax(
  plan: Exploration,
  values: Float64Array,
  left: readonly number[],
  uniforms: Uniforms,
): Pick {
  const best = bestOf(values);
  const weights = left.map((rank) =>
    Math.exp(Math.max((values[rank]! - values[best]!) / plan.temperature, -MAX_DISTANCE)),
  );
  let total = 0.0;
  const below = weights.map((weight) => (total += weight));
  const place = below.findIndex((sum) => sum > uniforms[0]! * total);
  // The product may round up to the sum.
  const chosen = place < 0 ? left.length - 1 : place;
  const rank = left[chosen]!;
  return { rank, explored: rank !== best, conditional: weights[chosen]! / total };
}

/** Returns the first rank of the highest value. */
function bestOf(values: Float64Array): number {
  let best = 0;
  for (let rank = 1; rank < values.length; rank++) {
    if (values[rank]! > values[best]!) {
      best = rank;
    }
  }
  return best;
}
