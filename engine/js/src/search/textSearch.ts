/**
 * Search in one catalog: words, meaning and the user's taste in one exact top-k.
 *
 * The score of item i for a query is
 *
 *     sum_q idf(q) g(q, i) / sum_q idf(q)  +  w_m z(p · v_i)  +  w_u / m z(u · v_i + b_i)
 *
 * over the m words q of the query, where g is the gain of BM25, p the query's vector from the
 * encoder, u the user vector, and z(x) subtracts the mean over the bundle's items and divides by
 * the standard deviation. All but the first term is linear in v_i, so that the index of int8 rows
 * finds the exact best with the rest as biases. See docs/MATH.md.
 */

import { isList } from "../json.js";
import type { Int8Index, SearchResult } from "../kernels/kernelSet.js";
import { MAX_VALUE } from "../kernels/layout.js";
import { RowMask } from "../kernels/rowMask.js";
import type { Masks } from "../ranking/eligibility.js";
import { product } from "../ranking/matrix.js";
import { concatenate, merged, NO_ROWS } from "../ranking/rows.js";
import type { Scorer } from "../ranking/scorer.js";
import type { Attributes } from "../slate.js";
import { cut } from "../unicode.js";
import { ScoreStatistics } from "./scoreStatistics.js";
import { type ItemText, WordIndex, type WordScores, wordScores } from "./wordIndex.js";
import { wordsOf } from "./words.js";

/** Characters of a query that are read. */
export const MAX_QUERY = 512;

const MAX_QUERY_WORDS = 16; // distinct ones

const MEANING_WEIGHT = 0.03; // w_m
const TASTE_WEIGHT = 0.02; // w_u, for a query of one word; more words leave less to taste

const NOT_SEARCHED: ReadonlySet<string> = new Set(["id", "title", "added_ms"]);

/** The part of the score that is linear in an item's vector: `unit (query · v + b) - offset`. */
interface Blend {
  readonly query: Float32Array;
  readonly unit: number;
  readonly offset: number;

  /** Whether only items with a word of the query may be found. */
  readonly needsWords: boolean;
}

/** What searches in all catalogs of one bundle share. */
export class SearchedBundle {
  readonly words: WordIndex;
  readonly statistics: ScoreStatistics;

  constructor(scorer: Scorer) {
    const { items, manifest } = scorer.bundle;
    this.words = new WordIndex(textsOf(scorer.bundle.records()));
    this.statistics = new ScoreStatistics({ ...items, d: manifest.sizes.dim });
  }
}

/** Searches one catalog: that of the bundle, and what the device added. */
export class TextSearch {
  private readonly addedWords: WordIndex;
  private readonly changedRows: readonly number[];
  private readonly changedWords: WordIndex;

  /** `bundle` is what another catalog of the same bundle has made. */
  constructor(
    readonly scorer: Scorer,
    readonly bundle: SearchedBundle = new SearchedBundle(scorer),
  ) {
    const { averageLength } = this.bundle.words;
    this.addedWords = new WordIndex(textsOf(scorer.overlay.added), averageLength);
    const changed = changedTexts(scorer);
    this.changedRows = [...changed.keys()];
    this.changedWords = new WordIndex(changed.values(), averageLength);
  }

  /**
   * Returns the k best rows for a query, the vector [d] of a user and that of the query [t].
   *
   * Without the latter only items with a word of the query are found. `masks` hide rows of the
   * bundle and of the added items.
   */
  search(
    query: string,
    k: number,
    user: Float32Array,
    meaning: Float32Array | null,
    masks: Masks,
  ): SearchResult {
    const words = wordsIn(query);
    if (words.length === 0) {
      return { rows: NO_ROWS, scores: new Float64Array(0), eligible: 0 };
    }
    const [found, foundAdded] = this.wordScores(words);
    const { policy } = this.scorer.bundle;
    const projected = meaning === null ? null : product(policy["item.project"], meaning);
    const blend = blendOf(this.bundle.statistics, user, projected, words.length);
    const [mask, addedMask] = masks;
    const bundled = bestOf(blend, this.scorer.index, k, found, mask);
    const { vectors } = this.scorer.overlay;
    if (vectors === null) {
      return bundled;
    }
    const added = bestOf(blend, vectors.index, k, foundAdded, addedMask);
    return merged(bundled, added, this.bundle.words.n, k);
  }

  /**
   * Returns the scores of the bundle's items, as they are on this device, and of added ones.
   *
   * An item whose texts have changed counts twice among the items that have a word.
   */
  private wordScores(words: readonly string[]): [WordScores, WordScores] {
    const indexes = [this.bundle.words, this.addedWords, this.changedWords];
    const [found, added, changed] = wordScores(words, indexes) as [
      WordScores,
      WordScores,
      WordScores,
    ];
    if (this.changedRows.length === 0) {
      return [found, added];
    }
    const isChanged = new Set(this.changedRows);
    const unchanged = Array.from(found.rows.keys()).filter(
      (place) => !isChanged.has(found.rows[place]!),
    );
    const rows = concatenate(
      Int32Array.from(unchanged, (place) => found.rows[place]!),
      changed.rows.map((place) => this.changedRows[place]!),
    );
    const scores = [...unchanged.map((place) => found.scores[place]!), ...changed.scores];
    return [{ rows, scores: Float64Array.from(scores) }, added];
  }
}

/** Returns the distinct words of a query that are searched for. */
export function wordsIn(query: string): string[] {
  const words = wordsOf(cut(query, MAX_QUERY), MAX_QUERY);
  return [...new Set(words)].slice(0, MAX_QUERY_WORDS);
}

/** Returns what a user vector [d], and that of a query if there is one, add to m words. */
function blendOf(
  statistics: ScoreStatistics,
  user: Float32Array,
  meaning: Float32Array | null,
  m: number,
): Blend {
  const taste = statistics.of(user, 1.0);
  const unit = TASTE_WEIGHT / m / taste.deviation;
  const offset = unit * taste.mean;
  if (meaning === null) {
    return { query: user, unit, offset, needsWords: true };
  }
  const nearness = statistics.of(meaning, 0.0);
  const byMeaning = MEANING_WEIGHT / nearness.deviation;
  const weight = Math.fround(byMeaning / unit);
  return {
    query: user.map((number, i) => number + Math.fround(weight * meaning[i]!)),
    unit,
    offset: offset + byMeaning * nearness.mean,
    needsWords: false,
  };
}

/** Returns the k rows of an index with the best sum of both parts of the score. */
function bestOf(
  blend: Blend,
  index: Int8Index,
  k: number,
  words: WordScores,
  mask: RowMask | null,
): SearchResult {
  let searched = mask;
  if (blend.needsWords) {
    const hidden = new Uint8Array(index.n).fill(1);
    for (const row of words.rows) {
      hidden[row] = mask?.hidden[row] ?? 0;
    }
    searched = new RowMask(hidden);
  }
  const raisedBy = Float32Array.from(words.scores, (score) =>
    Math.min(score / blend.unit, MAX_VALUE),
  );
  // Nothing else searches between these calls, since neither waits.
  const undo = index.raiseBiases(words.rows, raisedBy);
  try {
    const { rows, scores, eligible } = index.top(blend.query, k, NO_ROWS, searched ?? undefined);
    return { rows, scores: scores.map((score) => score * blend.unit - blend.offset), eligible };
  } finally {
    undo();
  }
}

function* textsOf(records: Iterable<Attributes>): Generator<ItemText> {
  for (const record of records) {
    yield itemText(record);
  }
}

/** Returns what is indexed of an item: its title, and the texts of its other attributes. */
function itemText(record: Attributes): ItemText {
  const title = String(record["title"] ?? "");
  const texts = Object.entries(record)
    .filter(([name]) => !NOT_SEARCHED.has(name))
    .flatMap(([, value]) => textsIn(value))
    .filter((text) => text !== title && !text.includes("://"));
  return { title, attributes: texts.join(" ") };
}

/** Returns what is indexed of the bundle's items of which texts may have changed, by row. */
function changedTexts(scorer: Scorer): Map<number, ItemText> {
  const texts = new Map<number, ItemText>();
  for (const [row, attributes] of scorer.overlay.changed) {
    // A number keeps its type when it changes, so it was no text before.
    const mayBeText = Object.values(attributes).some(
      (value) => value === null || typeof value === "string" || isList(value),
    );
    if (mayBeText) {
      texts.set(row, itemText({ ...scorer.bundle.record(row), ...attributes }));
    }
  }
  return texts;
}

/** Returns the texts of an attribute's value, itself or the elements of a list. */
function textsIn(value: unknown): string[] {
  const values = isList(value) ? value : [value];
  return values.filter((text) => typeof text === "string");
}
