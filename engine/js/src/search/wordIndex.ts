/**
 * An inverted index of titles and attributes, and BM25 over it (docs/MATH.md).
 *
 * BM25 of Robertson and Zaragoza (2009), The Probabilistic Relevance Framework, eq. 3.15, with two
 * fields (their section 3.6.1), and with the inverse document frequency of Lucene, which is never
 * negative.
 */

import { compareTexts, countCharacters } from "../unicode.js";
import { type Span, Vocabulary } from "./vocabulary.js";
import { isUnspaced, wordsOf } from "./words.js";

const MAX_ITEM_WORDS = 256; // of the title, and as many of the attributes

const K1 = 0.9; // how soon repetitions of a word stop to count
const B = 0.4; // how much longer items count less
const ATTRIBUTE_WEIGHT = 0.5; // of a word in an attribute, where one in the title weighs 1

const PREFIX_WEIGHT = 0.8; // of a word that only begins as the last word of the query
const EDIT_WEIGHT = 0.8; // of a word one edit away
const MIN_EDITED = 4; // characters of a word that may have a typing error

// Decimal digits, and what else stands for one where compatibility forms are gone.
const DIGIT = new RegExp(
  "[\\p{Nd}\\u1369-\\u1371\\u19da\\u24f5-\\u24fd\\u24ff\\u2776-\\u277e\\u2780-\\u2788" +
    "\\u278a-\\u2792\\u{10a40}-\\u{10a43}\\u{10e60}-\\u{10e68}\\u{11052}-\\u{1105a}]",
  "u",
);

/** What is indexed of an item. */
export interface ItemText {
  readonly title: string;
  readonly attributes: string;
}

/** Words of a vocabulary that a word of a query matches, and how much they count. */
interface Match {
  readonly span: Span;
  readonly weight: number;
}

/** Rows that have some words, a row once for each, and the gains. */
interface Postings {
  readonly rows: Int32Array;
  readonly gains: Float32Array;
}

/** The rows with a word of a query, ascending, and their scores, about 1 for all words. */
export interface WordScores {
  readonly rows: Int32Array;
  readonly scores: Float64Array;
}

/** The words of n items. */
export class WordIndex {
  readonly n: number;

  /** What lengths are compared with. */
  readonly averageLength: number;

  private readonly vocabulary: Vocabulary;
  private readonly starts: Int32Array; // of the postings of each word
  private readonly all: Postings; // of one word after the other, their rows ascending

  /** Indexes items; lengths are compared with `averageLength`, by default with their average. */
  constructor(items: Iterable<ItemText>, averageLength?: number) {
    const tokens = tokensOf(items);
    this.n = tokens.lengths.length;
    const total = tokens.lengths.reduce((sum, length) => sum + length, 0);
    this.averageLength = averageLength || (this.n > 0 ? total / this.n : 0.0) || 1.0;

    const words = [...tokens.ofWord.keys()].sort(compareTexts);
    this.vocabulary = new Vocabulary(words);
    this.starts = new Int32Array(words.length + 1);
    const size = [...tokens.ofWord.values()].reduce((sum, list) => sum + list.rows.length, 0);
    this.all = { rows: new Int32Array(size), gains: new Float32Array(size) };
    let place = 0;
    words.forEach((word, i) => {
      const { rows, weights } = tokens.ofWord.get(word)!;
      rows.forEach((row, j) => {
        const length = tokens.lengths[row]!;
        const norm = K1 * (1.0 - B + (B * length) / this.averageLength);
        this.all.rows[place] = row;
        this.all.gains[place] = (weights[j]! * (K1 + 1.0)) / (weights[j]! + norm);
        place += 1;
      });
      this.starts[i + 1] = place;
    });
  }

  /** Returns the words that match a word of a query as it is; the last may be unfinished. */
  matches(word: string, isLast: boolean): Match[] {
    const place = this.vocabulary.find(word);
    const exact: Match[] =
      place === null ? [] : [{ span: { first: place, last: place + 1 }, weight: 1.0 }];
    if (!isLast || isUnspaced(word)) {
      return exact;
    }
    const begun = this.vocabulary.withPrefix(word);
    const longer = { first: begun.first + exact.length, last: begun.last }; // the word sorts first
    return longer.first < longer.last
      ? [...exact, { span: longer, weight: PREFIX_WEIGHT }]
      : exact;
  }

  /**
   * Returns the words one edit from a word of a query, none where digits or length forbid it.
   *
   * Where there are none, and it is the last, those that begin with such a word.
   */
  nearMatches(word: string, isLast: boolean): Match[] {
    if (countCharacters(word) < MIN_EDITED || isUnspaced(word) || DIGIT.test(word)) {
      return [];
    }
    let near = this.vocabulary.oneEditAway(word);
    if (near.length === 0 && isLast) {
      near = this.vocabulary.oneEditAway(word, true);
    }
    return near.map((span) => ({ span, weight: EDIT_WEIGHT }));
  }

  /** Returns where the words stand, one after the other, and what each counts there. */
  postings(matches: readonly Match[]): Postings {
    const parts = matches.map(({ span, weight }) => ({
      start: this.starts[span.first]!,
      stop: this.starts[span.last]!,
      weight: Math.fround(weight),
    }));
    const size = parts.reduce((sum, { start, stop }) => sum + stop - start, 0);
    const found = { rows: new Int32Array(size), gains: new Float32Array(size) };
    let place = 0;
    for (const { start, stop, weight } of parts) {
      for (let i = start; i < stop; i++) {
        found.rows[place] = this.all.rows[i]!;
        found.gains[place] = this.all.gains[i]! * weight;
        place += 1;
      }
    }
    return found;
  }
}

/** What was read of some items. */
interface Tokens {
  /** By word the rows that have it, ascending, and how often, attributes weighing less. */
  readonly ofWord: ReadonlyMap<string, { readonly rows: number[]; readonly weights: number[] }>;

  /** The weights of all words of each item. */
  readonly lengths: readonly number[];
}

function tokensOf(items: Iterable<ItemText>): Tokens {
  const ofWord = new Map<string, { rows: number[]; weights: number[] }>();
  const lengths: number[] = [];
  const add = (row: number, text: string, weight: number): void => {
    for (const word of wordsOf(text, MAX_ITEM_WORDS)) {
      let list = ofWord.get(word);
      if (list === undefined) {
        list = { rows: [], weights: [] };
        ofWord.set(word, list);
      }
      if (list.rows[list.rows.length - 1] === row) {
        list.weights[list.weights.length - 1]! += weight;
      } else {
        list.rows.push(row);
        list.weights.push(weight);
      }
      lengths[row]! += weight;
    }
  };
  for (const { title, attributes } of items) {
    lengths.push(0);
    add(lengths.length - 1, title, 1.0);
    add(lengths.length - 1, attributes, ATTRIBUTE_WEIGHT);
  }
  return { ofWord, lengths };
}

/**
 * Returns for each index which items have words of a query, and what share of the query that is.
 *
 * The indexes are parts of one catalog, so frequencies are counted in all of them.
 */
export function wordScores(
  words: readonly string[],
  indexes: readonly WordIndex[],
): WordScores[] {
  const n = indexes.reduce((sum, index) => sum + index.n, 0);
  const found = words.map((word, place) => {
    const isLast = place === words.length - 1;
    let matches = indexes.map((index) => index.matches(word, isLast));
    if (matches.every((ofIndex) => ofIndex.length === 0)) {
      matches = indexes.map((index) => index.nearMatches(word, isLast));
    }
    return indexes.map((index, i) => index.postings(matches[i]!));
  });
  const frequencies = found.map((parts) => {
    const counts = parts.map((postings, i) => countItems(indexes[i]!.n, postings));
    return inverseFrequency(
      n,
      counts.reduce((sum, count) => sum + count, 0),
    );
  });
  return indexes.map((index, i) =>
    summed(
      index.n,
      found.map((parts) => parts[i]!),
      frequencies,
    ),
  );
}

/** Returns the gains of all words, weighted by their frequencies, of each item of n. */
function summed(
  n: number,
  postings: readonly Postings[],
  frequencies: readonly number[],
): WordScores {
  const total = frequencies.reduce((sum, frequency) => sum + frequency, 0);
  const all = new Float64Array(n);
  postings.forEach(({ rows, gains }, word) => {
    const share = Math.fround(frequencies[word]! / total);
    for (let i = 0; i < rows.length; i++) {
      all[rows[i]!]! += Math.fround(gains[i]! * share);
    }
  });
  const rows = new Int32Array(n);
  let count = 0;
  for (let row = 0; row < n; row++) {
    if (all[row]! > 0.0) {
      rows[count] = row;
      count += 1;
    }
  }
  return { rows: rows.slice(0, count), scores: all.filter((score) => score > 0.0) };
}

/** Returns how many of n items have one of the words. */
function countItems(n: number, postings: Postings): number {
  const isMarked = new Uint8Array(n);
  let count = 0;
  for (const row of postings.rows) {
    count += 1 - isMarked[row]!;
    isMarked[row] = 1;
  }
  return count;
}

/** Returns the weight of a word that `found` of n items have. */
function inverseFrequency(n: number, found: number): number {
  return Math.log(1.0 + (n - found + 0.5) / (found + 0.5));
}
