/**
 * Explains why a decision shows an item: exact counterfactuals of its score, and how its slot was
 * drawn.
 *
 * Everything is computed when it is asked for, from what `recommend` keeps of a decision.
 */

import { epsilonOf, greedyItems, newcomerRate } from "../decide.js";
import type { DecisionRecord } from "../decision.js";
import { shown as shownValue } from "../errors.js";
import { planOf } from "../exploration/arms.js";
import { withText } from "../ranking/contexts.js";
import type { Scorer } from "../ranking/scorer.js";
import type {
  EventReason,
  GreedyChoice,
  PopularityReason,
  Reasons,
  WordReason,
} from "../reasons.js";
import { boostsOf } from "../rules/boosts.js";
import type { SlateItem } from "../slate.js";
import { counterfactuals, type UserHistory } from "./history.js";
import { sentenceOf } from "./sentence.js";
import { contextWords, itemWords, SharedTraits } from "./texts.js";

/** The events that raised a score most, of which what they share with the item is named. */
const EVENTS_WITH_TRAITS = 10;

/** The rules that keep items out of the pool. */
const SELECTING_RULES = ["where", "among", "after", "exclude", "atMost"];

/** Rows whose scores are computed together, which bounds the memory. */
const ROWS_AT_ONCE = 8192;

/** A decision and what its user's vector was made of. */
export interface DecisionInputs {
  readonly record: DecisionRecord;
  readonly history: UserHistory;

  /** The vector [t + F] of the context (`ranking/contexts`), null without one. */
  readonly context: Float32Array | null;
}

/** Scores one row for what the user might have been, as `recommend` does. */
type ScoreOf = (state: Float32Array, context: Float32Array | null) => number;

/** Returns why a decision shows an item; throws `RangeError` where it does not. */
export async function explainItem(inputs: DecisionInputs, item: string): Promise<Reasons> {
  const { record, history, context } = inputs;
  const { scorer, slate, candidates } = record;
  const { shown, row } = findItem(record, item);
  const { state, steps, events } = history;
  const scoreOf = scorerOf(inputs, row);
  const without = counterfactuals(history, scorer);
  const score = scorer.scores(record.vector, Int32Array.of(row))[0]!;
  const { boosts } = candidates.eligible;
  const boost = boosts === null ? 0.0 : boostsOf(boosts, Int32Array.of(row))[0]!;
  const rules = rulesInForce(record, shown);
  const mayPassOver = SELECTING_RULES.some((name) => name in rules);
  const reasons: Reasons = {
    decision: slate.decision,
    release: slate.release,
    item: shown.id,
    title: shown.title || shown.id,
    slot: shown.slot,
    sentence: "",
    score: score + boost,
    boost,
    historyEffect: score - scoreOf(scorer.userModel.initialState(), context),
    events: eventReasons(inputs, row, score, scoreOf, without.withoutEvent),
    eventsKnown: steps.length,
    eventsTotal: events,
    olderEffect: events > steps.length ? score - scoreOf(without.withoutOlder, context) : 0.0,
    isExact: without.isExact,
    popularity: popularityOf(scorer, row),
    contextEffect: context === null ? null : score - scoreOf(state, null),
    words: await wordReasons(inputs, row, score, scoreOf),
    rank: shown.rank,
    eligible: candidates.ranking.eligible,
    pool: candidates.ranking.rows.length,
    scheme: record.plan.scheme,
    epsilon: epsilonOf(record),
    explored: shown.explored,
    newcomer: shown.newcomer,
    pinned: shown.pinned,
    propensity: shown.propensity,
    marginal: shown.marginal,
    greedy: greedyChoice(record, shown.slot),
    rules,
    passedOver: mayPassOver ? passedOver(record, shown, row) : 0,
  };
  return { ...reasons, sentence: sentenceOf(reasons) };
}

/** Returns an item of the slate and its row. */
function findItem(record: DecisionRecord, item: string): { shown: SlateItem; row: number } {
  const { items, decision } = record.slate;
  const row = record.scorer.find(item);
  const shown = items.find(({ id }) => id === item);
  if (shown === undefined || row === null) {
    throw new RangeError(
      `item: expected one of the ${items.length} items of decision ${decision},` +
        ` found ${shownValue(item)}`,
    );
  }
  return { shown, row };
}

function scorerOf({ record }: DecisionInputs, row: number): ScoreOf {
  const { scorer, arm } = record;
  const rows = Int32Array.of(row);
  return (state, context) => {
    const isPersonal = arm?.personalized !== false;
    const vector = isPersonal
      ? scorer.userModel.userVector(state, context ?? undefined)
      : record.vector;
    return scorer.scores(vector, rows)[0]!;
  };
}

/** Returns what each known event did to the score; state j lacks event j. */
function eventReasons(
  { record, history, context }: DecisionInputs,
  shownRow: number,
  score: number,
  scoreOf: ScoreOf,
  states: readonly Float32Array[],
): EventReason[] {
  const { scorer } = record;
  const { steps } = history;
  const reasons = steps.map(([item, kind], j) => {
    const row = scorer.find(item);
    const title = (row === null ? "" : scorer.item(row).title) || item;
    const effect = score - scoreOf(states[j]!, context);
    return { item, title, kind, ago: steps.length - j, effect, shared: [], row };
  });
  reasons.sort((a, b) => b.effect - a.effect || a.ago - b.ago);
  const traits = new SharedTraits(scorer, shownRow);
  return reasons.map(({ row, ...reason }, place) => {
    const isNamed = place < EVENTS_WITH_TRAITS && row !== null && reason.effect > 0.0;
    return isNamed ? { ...reason, shared: traits.withItem(row) } : reason;
  });
}

async function wordReasons(
  { record, history, context }: DecisionInputs,
  row: number,
  score: number,
  scoreOf: ScoreOf,
): Promise<WordReason[]> {
  const { scorer, request, vector } = record;
  const words = await itemWords(scorer, vector, row, score);
  const { text } = request.context;
  if (text && context !== null) {
    const t = scorer.bundle.manifest.sizes.text;
    const scoreIn = (other: Float32Array | null): number =>
      scoreOf(history.state, withText(context, other, t));
    words.push(...(await contextWords(scorer, text, score, scoreIn)));
  }
  return words.sort((a, b) => b.effect - a.effect);
}

function popularityOf(scorer: Scorer, row: number): PopularityReason {
  const { bias: biases } = scorer.bundle.items;
  const bias = biases[row] ?? scorer.bundle.policy["item.bias"][0]!;
  const mean = biases.reduce((sum, each) => sum + each, 0) / biases.length;
  const lower = biases.reduce((count, each) => count + (each < bias ? 1 : 0), 0);
  return { bias, aboveMean: bias - mean, percentile: lower / biases.length };
}

function greedyChoice(record: DecisionRecord, slot: number): GreedyChoice | null {
  const item = greedyItems(record)[slot];
  return item === undefined
    ? null
    : { id: item.id, title: item.title || item.id, score: item.score };
}

/** Returns the rules in force in a slot: arguments of `recommend` and settings of the bundle. */
function rulesInForce(record: DecisionRecord, shown: SlateItem): Record<string, unknown> {
  const { plan, request, arm } = record;
  const { where, among, earlier, exclude, atMost, boost, diversity } = request;
  const released = planOf(record.scorer.bundle.manifest, arm);
  const rate = newcomerRate(record);
  const isGreedy = plan.epsilon === 0.0 && released.epsilon > 0.0;
  const isGuarded = shown.slot < plan.guarded;
  const ofRequest: [string, unknown, boolean][] = [
    ["arm", arm?.name, arm !== null],
    ["where", where && JSON.parse(where.canonical), where !== null],
    ["among", among?.length, (among?.length ?? 0) > 0],
    ["after", earlier.length, earlier.length > 0],
    ["exclude", exclude.length, exclude.length > 0],
    ["atMost", Object.fromEntries(atMost), atMost.size > 0],
    ["boost", boost.length, boost.length > 0],
    ["diversity", diversity, diversity > 0],
    ["pin", shown.id, shown.pinned],
    ["greedy", true, !shown.pinned && isGreedy],
    ["guarded", plan.guarded, !shown.pinned && isGuarded],
    ["newcomers", rate, !shown.pinned && !isGuarded && rate > 0],
  ];
  const inForce = ofRequest.filter(([, , isInForce]) => isInForce);
  return Object.fromEntries(inForce.map(([name, value]) => [name, value]));
}

/**
 * Returns how many items of a better score rules kept off the slate's pool; 0 for newcomers and
 * pinned items, which are outside the pool.
 */
function passedOver(record: DecisionRecord, shown: SlateItem, row: number): number {
  if (shown.newcomer || shown.pinned) {
    return 0;
  }
  const { scorer, vector, candidates } = record;
  const { boosts } = candidates.eligible;
  const pinned = new Set(candidates.pins.rows); // these are shown
  const n = scorer.bundle.manifest.sizes.items + scorer.overlay.added.length;
  let better = 0;
  for (let start = 0; start < n; start += ROWS_AT_ONCE) {
    const size = Math.min(ROWS_AT_ONCE, n - start);
    const rows = Int32Array.from({ length: size }, (_, i) => start + i);
    const scores = scorer.scores(vector, rows);
    const added = boosts === null ? null : boostsOf(boosts, rows);
    rows.forEach((other, i) => {
      const score = scores[i]! + (added?.[i] ?? 0.0);
      const isBetter = score > shown.score || (score === shown.score && other < row);
      const isHidden = (scorer.overlay.mask?.hidden[other] ?? 0) !== 0;
      better += isBetter && !isHidden && !pinned.has(other) ? 1 : 0;
    });
  }
  return better - shown.rank;
}
