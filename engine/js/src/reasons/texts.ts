/** What words do to a score, and what two items of the catalog have in common. */

import { isList } from "../json.js";
import { vectorOfNew } from "../ranking/addedItems.js";
import type { CatalogItem } from "../ranking/catalogItem.js";
import { quantizeRows } from "../ranking/quantization.js";
import type { Scorer } from "../ranking/scorer.js";
import type { SharedTrait, WordReason } from "../reasons.js";
import {
  casefold,
  compareTexts,
  countCharacters,
  withSingleBlanks,
  wordMatches,
} from "../unicode.js";

/** Words of a text that are left out, one after the other: each costs an encoding. */
const MAX_WORDS = 32;

/** Items of the catalog that show how usual a trait is. */
const SAMPLED_ITEMS = 256;

/** What more of the sample have tells nothing about two items. */
const MAX_SHARE = 0.3;

/** The same of words of titles: that many have an article, or a year. */
const MAX_SHARE_OF_TITLES = 0.1;

/** Letters of a shared word at least. */
const SHORTEST_WORD = 3;

/** Shared traits that are named for one event. */
const MAX_SHARED = 5;

/** Fields of an added item that are no attributes. */
const OWN_FIELDS: ReadonlySet<string> = new Set(["id", "text", "added_ms"]);

/** A field and a value, by both of which a set tells traits apart. */
type Traits = ReadonlyMap<string, { readonly field: string; readonly value: string }>;

/**
 * Yields the first 32 different words of a text, in lower case, each with the text without all its
 * occurrences and a blank beside each.
 */
export function* withoutEachWord(text: string): Generator<[word: string, left: string]> {
  const matches = wordMatches(text).map((match) => ({
    word: casefold(match[0]),
    start: match.index!,
    end: match.index! + match[0].length,
  }));
  const words = new Set(matches.map(({ word }) => word));
  for (const word of [...words].slice(0, MAX_WORDS)) {
    let left = "";
    let end = 0;
    for (const match of matches) {
      if (match.word === word) {
        left += text.slice(end, match.start).replace(/ $/, "");
        end = match.end;
      }
    }
    yield [word, (left + text.slice(end)).replace(/^ /, "")];
  }
}

/** Returns what the words of a context did to a score; `scoreOf` scores a context's vector. */
export async function contextWords(
  scorer: Scorer,
  text: string,
  score: number,
  scoreOf: (context: Float32Array | null) => number,
): Promise<WordReason[]> {
  const reasons: WordReason[] = [];
  for (const [word, left] of withoutEachWord(text)) {
    const vector = left === "" ? null : await scorer.encoder.encode(left, false);
    reasons.push({ word, source: "context", effect: score - scoreOf(vector) });
  }
  return reasons;
}

/**
 * Returns what the words of its own text did to the score of an item that this device added.
 *
 * Nothing for items of the bundle: what training learned of them is not in their texts.
 */
export async function itemWords(
  scorer: Scorer,
  user: Float32Array,
  row: number,
  score: number,
): Promise<WordReason[]> {
  const { manifest, policy } = scorer.bundle;
  const id = scorer.overlay.added[row - manifest.sizes.items]?.id;
  // As it was added: what the app changed since has not moved its vector.
  const record = scorer.overlay.records.find((each) => each.id === id);
  if (record === undefined) {
    return [];
  }
  const { text = "", title } = record;
  const bias = Float32Array.of(policy["item.bias"][0]!);
  const d = manifest.sizes.dim;
  const reasons: WordReason[] = [];
  for (const [word, left] of withoutEachWord(text)) {
    const without = { ...record, text: left, title: title === text ? left : title };
    const quantized = quantizeRows([await vectorOfNew(scorer, without, false)], d);
    const index = scorer.kernels.makeIndex({ ...quantized, bias, d });
    const [other] = index.scores(user, Int32Array.of(0));
    index.release();
    reasons.push({ word, source: "text", effect: score - other! });
  }
  return reasons;
}

/** Finds what an item shares with others, and how usual that is in a catalog. */
export class SharedTraits {
  private readonly own: Traits;
  private sample: { readonly counts: ReadonlyMap<string, number>; readonly size: number } | null =
    null;

  constructor(
    private readonly scorer: Scorer,
    row: number,
  ) {
    this.own = traitsOf(scorer.item(row));
  }

  /** Returns what the item shares with that of another row, rarest first. */
  withItem(row: number): SharedTrait[] {
    const others = traitsOf(this.scorer.item(row));
    const shared = [...this.own].filter(([key]) => others.has(key));
    // Of a text that both have, its words say nothing more.
    const said = new Set(
      shared.flatMap(([, { field, value }]) => partsOf(value).map((word) => keyOf(field, word))),
    );
    this.sample ??= sampleOf(this.scorer);
    const { counts, size } = this.sample;
    return shared
      .filter(([key]) => !said.has(key))
      .map(([key, trait]) => ({ ...trait, share: (counts.get(key) ?? 0) / size }))
      .filter(({ field, share }) => share <= (field === "title" ? MAX_SHARE_OF_TITLES : MAX_SHARE))
      .sort(
        (a, b) =>
          a.share - b.share || compareTexts(a.field, b.field) || compareTexts(a.value, b.value),
      )
      .slice(0, MAX_SHARED);
  }
}

/** Returns how many items of an even sample of the bundle's have each trait, and its size. */
function sampleOf(scorer: Scorer): { counts: Map<string, number>; size: number } {
  const n = scorer.bundle.manifest.sizes.items;
  const size = Math.min(n, SAMPLED_ITEMS);
  const step = size > 1 ? (n - 1) / (size - 1) : 0;
  const counts = new Map<string, number>();
  for (let i = 0; i < size; i++) {
    const row = i === size - 1 ? n - 1 : Math.trunc(i * step);
    for (const key of traitsOf(scorer.item(row)).keys()) {
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  }
  return { counts, size };
}

/** Returns the words of a text of several, [] for a single word. */
function partsOf(text: string): string[] {
  const words = wordsIn(text);
  return words.length === 1 && words[0] === text ? [] : words;
}

/**
 * Returns the fields and values, in lower case, in which an item may agree with another.
 *
 * Of texts each word and the whole, of lists each text. Numbers are left out: the same price is a
 * coincidence.
 */
function traitsOf(item: CatalogItem): Traits {
  const traits = new Map<string, { field: string; value: string }>();
  for (const [field, value] of Object.entries({ ...item.attributes, title: item.title })) {
    if (OWN_FIELDS.has(field)) {
      continue;
    }
    for (const trait of valuesIn(value)) {
      if (countCharacters(trait) >= SHORTEST_WORD) {
        traits.set(keyOf(field, trait), { field, value: trait });
      }
    }
  }
  return traits;
}

function valuesIn(value: unknown): string[] {
  if (typeof value === "string") {
    const text = withSingleBlanks(casefold(value));
    return [text, ...wordsIn(text)];
  }
  const entries = isList(value) ? value : [];
  return entries.filter((entry) => typeof entry === "string").map(casefold);
}

function wordsIn(text: string): string[] {
  return wordMatches(text).map(([word]) => word);
}

function keyOf(field: string, value: string): string {
  return JSON.stringify([field, value]);
}
