/** Decides one slate: ranks the pool, draws from it, and repeats a decision to explain it. */

import type { Exploration } from "./bundle/manifest.js";
import type { Candidates, DecisionRecord, Pins, RecommendRequest } from "./decision.js";
import { drawDiverse } from "./exploration/diversity.js";
import type { Draw } from "./exploration/draw.js";
import * as newcomers from "./exploration/newcomers.js";
import { planOfOthers, withPins } from "./exploration/pins.js";
import * as schemes from "./exploration/schemes.js";
import { NO_NEWCOMERS } from "./ranking/newcomers.js";
import { concatenate } from "./ranking/rows.js";
import type { Scorer } from "./ranking/scorer.js";
import { boostsOf } from "./rules/boosts.js";
import { NOTHING_PINNED, pinsInForce } from "./rules/pins.js";
import { utf8Length } from "./runtime/text.js";
import { type Explanation, Slate, SlateItem } from "./slate.js";

const ROOM_FOR_SLATE = 196608;
const ROOM_FOR_SLOT = 128;
const ROOM_FOR_MARK = 16;

/** For whom a slate is decided. */
export interface DecisionSubject {
  /** The user vector [d]. */
  readonly vector: Float32Array;

  /** The user's name on the wire. */
  readonly pseudonym: string;
}

/**
 * Ranks the pool for a user vector, and draws a slate from it: a pure function of its arguments.
 *
 * `decision` is the id from which the draws follow.
 */
export function decide(
  scorer: Scorer,
  subject: DecisionSubject,
  plan: Exploration,
  request: RecommendRequest,
  decision: string,
): DecisionRecord {
  const { vector, pseudonym } = subject;
  const candidates = candidatesOf(scorer, vector, plan, request);
  const items = drawItems(scorer, vector, plan, request, candidates, decision);
  const eligible = candidates.ranking.eligible + candidates.pins.slots.length;
  const isShort = items.length < request.k;
  const slate = new Slate({
    decision,
    user: request.user,
    pseudonym,
    release: scorer.bundle.manifest.release,
    items,
    eligible,
    shortage: isShort ? shortage(request, candidates, eligible, items.length) : "",
    earlier: request.earlier,
    arm: null,
  });
  return { scorer, vector, plan, request, candidates, slate, arm: null };
}

/** Returns the probability that a slot behind the guarded ones showed a newcomer. */
export function newcomerRate(record: DecisionRecord): number {
  const hasQuota = schemes.hasQuota(record.plan, record.candidates.newcomers.length);
  return hasQuota ? newcomers.rate(record.plan) : 0.0;
}

/** Returns the scheme's probability of exploring in slots that are not newcomers'. */
export function epsilonOf(record: DecisionRecord): number {
  const { plan } = record;
  return newcomerRate(record) > 0 ? newcomers.regular(plan).epsilon : plan.epsilon;
}

/**
 * Returns whether the pool is another than that of the bundle's best items for the user.
 *
 * It is without personalization, under caps, rules and boosts, with items that the device added or
 * removed, and where an excluded item would have been in it. Nobody can rebuild such a pool from
 * the user's events.
 */
export function isPoolShaped(record: DecisionRecord): boolean {
  const { scorer, request, candidates } = record;
  const isConfined = request.where !== null || request.among !== null;
  const isRuled = request.atMost.size > 0 || isConfined || request.boost.length > 0;
  if (record.arm?.personalized === false || isRuled || scorer.overlay.records.length > 0) {
    return true;
  }
  const excluded = candidates.excluded.filter((row) => row >= 0);
  if (excluded.length === 0) {
    return false;
  }
  const { scores } = candidates.ranking;
  if (scores.length < poolSize(record.plan, request, candidates.pins)) {
    return true; // every eligible item is in the pool, so each of these would be
  }
  const last = scores[scores.length - 1]!;
  return scorer.scores(record.vector, excluded).some((score) => score >= last);
}

/** Returns what boosts added to the scores of the pool, null without boosts. */
export function poolBoosts(record: DecisionRecord): Float64Array | null {
  const { ranking, eligible } = record.candidates;
  return eligible.boosts && boostsOf(eligible.boosts, ranking.rows);
}

/** Returns the items that a decision would have shown without exploration. */
export function greedyItems(record: DecisionRecord): SlateItem[] {
  const { scorer, vector, request, candidates, slate } = record;
  const plan = schemes.greedy(record.plan);
  return drawItems(scorer, vector, plan, request, candidates, slate.decision);
}

/** Repeats a decision, and compares it with the logged one. */
export function explain(record: DecisionRecord): Explanation {
  const { scorer, plan, request, slate } = record;
  const subject = { vector: record.vector, pseudonym: slate.pseudonym };
  const repeated = decide(scorer, subject, plan, request, slate.decision);
  return {
    decision: repeated.slate.decision,
    release: repeated.slate.release,
    scheme: plan.scheme,
    epsilon: epsilonOf(repeated),
    pool: repeated.candidates.ranking.rows.length,
    eligible: repeated.candidates.ranking.eligible,
    greedy: greedyItems(record).map((item) => item.id),
    slate: repeated.slate.items,
    isIdentical: areIdentical(repeated.slate.items, slate.items),
  };
}

function areIdentical(some: readonly SlateItem[], others: readonly SlateItem[]): boolean {
  // JSON writes numbers so that they read back as the same bits.
  return JSON.stringify(some) === JSON.stringify(others);
}

function candidatesOf(
  scorer: Scorer,
  vector: Float32Array,
  plan: Exploration,
  request: RecommendRequest,
): Candidates {
  const { where, among, boost, atMost, pin } = request;
  const eligible = scorer.eligible(where, among, boost);
  let excluded = scorer.rowsOf([...request.exclude, ...request.earlier]);
  let pins = NOTHING_PINNED;
  if (pin.size > 0) {
    pins = pinsInForce(scorer, pin, excluded, scorer.caps(atMost), eligible);
    excluded = concatenate(excluded, pins.rows);
  }
  const size = poolSize(plan, request, pins);
  const limits = { excluded, eligible, atMost, taken: pins.rows };
  const ranking = scorer.rank(vector, size, limits);
  let outside = NO_NEWCOMERS;
  if (schemes.hasQuota(plan, eligible.newcomers.length)) {
    const taken = concatenate(ranking.rows, pins.rows);
    outside = scorer.newcomersOutside(vector, size, { ...limits, taken });
  }
  return { ranking, newcomers: outside, excluded, pins, eligible };
}

/** Returns of how many items the pool is, unless fewer are eligible. */
function poolSize(plan: Exploration, request: RecommendRequest, pins: Pins): number {
  return Math.max(plan.pool, request.k - pins.slots.length);
}

/** Returns why a slate is shorter than its request. */
function shortage(
  request: RecommendRequest,
  candidates: Candidates,
  eligible: number,
  shown: number,
): string {
  const given = {
    where: request.where !== null,
    among: request.among !== null,
    after: request.earlier.length > 0,
    exclude: request.exclude.length > 0,
  };
  const rules = Object.entries(given)
    .filter(([, isGiven]) => isGiven)
    .map(([name]) => `\`${name}\``)
    .join(" and ");
  const by = rules === "" ? "" : ` by ${rules}`;
  const found = `${shown} of ${request.k} items: ${eligible} are eligible${by}`;
  if (shown === eligible) {
    return found;
  }
  if (shown === candidates.ranking.rows.length + candidates.pins.slots.length) {
    return `${found}, of which \`atMost\` leaves ${shown}`;
  }
  return `${found}, but their ids are too long for one event`;
}

/**
 * Draws the slate of a request, with the randomness of a decision's id.
 *
 * It ends early where its event would exceed the wire's limit of bytes; the slots before the end
 * keep their propensities.
 */
function drawItems(
  scorer: Scorer,
  vector: Float32Array,
  plan: Exploration,
  request: RecommendRequest,
  candidates: Candidates,
  decision: string,
): SlateItem[] {
  const { rows, scores } = candidates.ranking;
  const firstPin = rows.length + candidates.newcomers.length;
  const drawn = drawRanks(scorer, plan, request, candidates, decision);
  const items: SlateItem[] = [];
  let bytesLeft = ROOM_FOR_SLATE;
  for (const [slot, rank] of drawn.ranks.entries()) {
    const isOutside = rank >= rows.length;
    const row = isOutside ? rowOutside(candidates, rank) : rows[rank]!;
    const item = scorer.item(row);
    bytesLeft -= slotBytes(item.id, isOutside);
    if (bytesLeft < 0) {
      break;
    }
    items.push(
      new SlateItem({
        id: item.id,
        title: item.title,
        score: isOutside ? scoreOutside(scorer, vector, candidates, row) : scores[rank]!,
        slot,
        rank,
        explored: drawn.explored[slot]!,
        propensity: drawn.conditional[slot]!,
        marginal: drawn.marginal[slot]!,
        attributes: { ...item.attributes },
        newcomer: isOutside && rank < firstPin,
        pinned: rank >= firstPin,
      }),
    );
  }
  return items;
}

/** Returns the row of a rank behind the pool: a newcomer's or a pinned item's. */
function rowOutside(candidates: Candidates, rank: number): number {
  const place = rank - candidates.ranking.rows.length;
  const count = candidates.newcomers.length;
  return place < count ? candidates.newcomers.row(place) : candidates.pins.rows[place - count]!;
}

/** Returns the score of a row outside the pool, its boosts included. */
function scoreOutside(
  scorer: Scorer,
  vector: Float32Array,
  candidates: Candidates,
  row: number,
): number {
  const rows = Int32Array.of(row);
  const [score] = scorer.scores(vector, rows);
  const { boosts } = candidates.eligible;
  return boosts === null ? score! : score! + boostsOf(boosts, rows)[0]!;
}

/** Returns the ranks of the slate of a request: of the pool, of newcomers, and of pins. */
function drawRanks(
  scorer: Scorer,
  plan: Exploration,
  request: RecommendRequest,
  candidates: Candidates,
  decision: string,
): Draw {
  const { ranking, pins } = candidates;
  const { scores } = ranking;
  const count = candidates.newcomers.length;
  const pinned = pins.slots;
  const ofOthers = planOfOthers(plan, pinned);
  const slots = Math.min(request.k - pinned.length, scores.length);
  const blocks = schemes.countUniforms(ofOthers, slots, scores.length, count);
  const uniforms = scorer.kernels.uniforms(decision, blocks);
  let drawn: Draw;
  if (request.diversity > 0) {
    const vectors = Array.from(ranking.rows, (row) => scorer.codes(row));
    const ofPinned = Array.from(pins.rows, (row) => scorer.codes(row));
    const relevance = { diversity: request.diversity, scores, vectors, pinned: ofPinned };
    drawn = drawDiverse(ofOthers, slots, relevance, uniforms, count);
  } else {
    drawn = schemes.draw(ofOthers, slots, scores, uniforms, count);
  }
  return pinned.length > 0 ? withPins(drawn, pinned, scores.length + count) : drawn;
}

/** Returns an upper bound of the bytes that a slot takes in an encoded decision. */
function slotBytes(item: string, isMarked: boolean): number {
  return ROOM_FOR_SLOT + (isMarked ? ROOM_FOR_MARK : 0) + utf8Length(JSON.stringify(item));
}
