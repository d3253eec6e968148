/**
 * What a person can filter a catalog by, found in its values: chips of a category, and a range of a
 * number. Both become exact rules of the engine.
 */

import type { Attributes } from "../src/index.js";

/** An item of the catalog. */
export interface CatalogEntry {
  readonly id: string;
  readonly title: string;
  readonly attributes: Attributes;
}

/** A column with few values. */
export interface Category {
  readonly name: string;

  /** What is on the chips, by descending count. */
  readonly labels: readonly string[];

  /** The labels that a value of the column stands for. */
  readonly labelsOf: (value: unknown) => readonly string[];

  /** The values of the column that have a label. */
  readonly valuesOf: (label: string) => readonly string[];
}

/** A column of numbers. */
export interface Range {
  readonly name: string;
  readonly low: number;
  readonly high: number;
  readonly step: number;

  /** Whether the numbers are years, which are read by decades. */
  readonly isYear: boolean;

  /** Whether the number stands at the end of the titles, so that no rule on attributes finds it. */
  readonly isInTitle: boolean;

  /** Returns the item's number, or null. */
  readonly valueOf: (item: CatalogEntry) => number | null;
}

/** The columns by which the page filters; either may be missing. */
export interface Columns {
  readonly category: Category | null;
  readonly range: Range | null;
}

const MAX_LABELS = 24;
const MIN_LABELS = 2;
const MIN_SHARE = 0.8;
const STEPS = 20;
const MAX_DECADES = 20;
const ARTICLE_BEHIND = /^([^(]+), (The|An|A)( \(.*)?$/;
const YEAR_IN_TITLE = /\((\d{4})\)\s*$/;

/** Returns the columns of a catalog. */
export function findColumns(catalog: readonly CatalogEntry[]): Columns {
  const names = new Set<string>();
  for (const item of catalog) {
    Object.keys(item.attributes).forEach((name) => names.add(name));
  }
  let category: Category | null = null;
  let range: Range | null = null;
  for (const name of names) {
    const values = catalog.map((item) => item.attributes[name]).filter((v) => v !== undefined);
    if (values.length < MIN_SHARE * catalog.length) {
      continue;
    }
    range ??= rangeOf(name, values, (item) => asNumber(item.attributes[name]), false);
    category ??= categoryOf(name, values);
  }
  return { category, range: range ?? yearInTitles(catalog) };
}

/** Returns the title without the year at its end, and with its article in front. */
export function plainTitle(title: string): string {
  const plain = title.replace(YEAR_IN_TITLE, "").trim() || title;
  return plain.replace(ARTICLE_BEHIND, "$2 $1$3");
}

function categoryOf(name: string, values: readonly unknown[]): Category | null {
  const whole = (value: unknown): readonly string[] => texts(value);
  // A text such as "Comedy Drama" is one value to the engine; a person filters by its words.
  const words = (value: unknown): readonly string[] =>
    texts(value).flatMap((text) => text.split(/[\s,|;]+/).filter(Boolean));
  for (const labelsOf of [whole, words]) {
    const counts = new Map<string, number>();
    const holders = new Map<string, Set<string>>();
    for (const value of values) {
      for (const label of new Set(labelsOf(value))) {
        counts.set(label, (counts.get(label) ?? 0) + 1);
        const held = holders.get(label) ?? new Set<string>();
        texts(value).forEach((text) => labelsOf(text).includes(label) && held.add(text));
        holders.set(label, held);
      }
    }
    if (counts.size >= MIN_LABELS && counts.size <= MAX_LABELS) {
      const labels = [...counts.keys()].sort((a, b) => counts.get(b)! - counts.get(a)!);
      return { name, labels, labelsOf, valuesOf: (label) => [...(holders.get(label) ?? [])] };
    }
  }
  return null;
}

function texts(value: unknown): readonly string[] {
  const values: readonly unknown[] = Array.isArray(value) ? value : [value];
  return values.filter((entry): entry is string => typeof entry === "string" && entry !== "");
}

function asNumber(value: unknown): number | null {
  return typeof value === "number" ? value : null;
}

function yearInTitles(catalog: readonly CatalogEntry[]): Range | null {
  const valueOf = (item: CatalogEntry): number | null => {
    const found = YEAR_IN_TITLE.exec(item.title);
    return found ? Number(found[1]) : null;
  };
  const values = catalog.map(valueOf).filter((value) => value !== null);
  return values.length < MIN_SHARE * catalog.length ? null : rangeOf("year", values, valueOf, true);
}

function rangeOf(
  name: string,
  values: readonly unknown[],
  valueOf: (item: CatalogEntry) => number | null,
  isInTitle: boolean,
): Range | null {
  const numbers = values.filter((value): value is number => typeof value === "number");
  if (numbers.length < values.length) {
    return null;
  }
  const sorted = [...numbers].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)]!;
  const last = sorted[sorted.length - 1]!;
  const isYear = numbers.every(Number.isInteger) && median >= 1000 && last <= 2100;
  const step = isYear ? 10 : niceStep((last - sorted[0]!) / STEPS);
  // The lowest step means that and all before: a book of antiquity must not stretch the scale.
  const first = isYear ? Math.max(sorted[0]!, last - MAX_DECADES * step) : sorted[0]!;
  const low = Math.floor(first / step) * step;
  const high = Math.floor(last / step) * step;
  return high > low ? { name, low, high, step, isYear, isInTitle, valueOf } : null;
}

function niceStep(rough: number): number {
  const power = 10 ** Math.floor(Math.log10(rough || 1));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough) ?? power;
}
