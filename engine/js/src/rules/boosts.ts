/** Boosts: amounts that a request adds to the scores of the items that meet a rule. */

import { isIterable, shown, typeName } from "../errors.js";
import type { SearchResult } from "../kernels/kernelSet.js";
import { concatenate } from "../ranking/rows.js";
import { compareTexts } from "../unicode.js";
import type { CatalogAttributes } from "./catalogAttributes.js";
import type { Boost, RowBoosts } from "./types.js";
import { parseRule } from "./where.js";

/** How many boosts a request may have. */
export const MAX_BOOSTS = 16;

/** How many different sums of boosts a catalog's items may have: each takes a search. */
const MAX_SUMS = 16;

const MAX_BY = 1e6;

/** No boosts. */
export const NO_BOOSTS: readonly Boost[] = [];

/**
 * Returns the boosts of a request.
 *
 * Throws `TypeError` for what is no list of objects with `where` and `by`, `RangeError` for more
 * than 16 of them, an amount that is not in [-1e6, 1e6], and as `parseRule` does.
 */
export function parseBoosts(boost: unknown): readonly Boost[] {
  if (!isIterable(boost)) {
    throw new TypeError(
      `boost: expected a list such as [{"where": {...}, "by": 0.5}], found ${typeName(boost)}`,
    );
  }
  const entries = [...boost];
  if (entries.length > MAX_BOOSTS) {
    throw new RangeError(
      `boost: expected at most ${MAX_BOOSTS} entries, found ${entries.length}`,
    );
  }
  return entries.map((entry, i) => parseEntry(entry, `boost: entry ${i}`));
}

function parseEntry(entry: unknown, place: string): Boost {
  if (typeof entry !== "object" || entry === null || Array.isArray(entry)) {
    throw new TypeError(
      `${place}: expected a mapping such as {"where": {...}, "by": 0.5}, found ${typeName(entry)}`,
    );
  }
  const names = Object.keys(entry).sort(compareTexts);
  if (names.join() !== "by,where") {
    throw new RangeError(`${place}: expected \`where\` and \`by\`, found ${shown(names)}`);
  }
  const { where, by } = entry as { where: unknown; by: unknown };
  if (typeof by !== "number") {
    throw new TypeError(`${place}: by: expected a number, found ${typeName(by)}`);
  }
  if (!(by >= -MAX_BY && by <= MAX_BY)) {
    throw new RangeError(
      `${place}: by: expected a number in [-1e+06, 1e+06], found ${shown(by)}`,
    );
  }
  return { rule: parseRule(where, `${place}: where`), by };
}

/**
 * Returns what boosts, of which there is one at least, add to each row of a catalog.
 *
 * Throws `RangeError` where its items have more than 16 different sums, and as
 * `CatalogAttributes.matches` does.
 */
export function rowBoosts(attributes: CatalogAttributes, boosts: readonly Boost[]): RowBoosts {
  let total: Float64Array | null = null;
  boosts.forEach((boost, i) => {
    const isMatch = attributes.matches(boost.rule, `boost: entry ${i}: where`);
    total ??= new Float64Array(isMatch.length);
    for (let row = 0; row < isMatch.length; row++) {
      total[row]! += isMatch[row] === 1 ? boost.by : 0.0;
    }
  });
  const sums = Float64Array.from(new Set<number>(total ?? [])).sort();
  if (sums.length > MAX_SUMS) {
    throw new RangeError(
      `boost: expected at most ${MAX_SUMS} different sums of \`by\` over the items, found` +
        ` ${sums.length}; use fewer boosts that overlap`,
    );
  }
  const codeOf = new Map(Array.from(sums, (sum, code) => [sum, code]));
  return { sums, code: Uint8Array.from(total ?? [], (sum) => codeOf.get(sum)!) };
}

/** Returns what boosts add to the scores of rows. */
export function boostsOf(boosts: RowBoosts, rows: Int32Array): Float64Array {
  return Float64Array.from(rows, (row) => boosts.sums[boosts.code[row]!]!);
}

/**
 * Returns the k best of what searches found, with one boost for each search: by the boosted score,
 * then the plain one, then the row.
 *
 * A boost changes no order within a search, so that its k best rows are enough.
 */
export function bestBoosted(
  found: readonly SearchResult[],
  boosts: readonly number[],
  k: number,
): SearchResult {
  const rows = concatenate(...found.map((each) => each.rows));
  const plain = found.flatMap((each) => [...each.scores]);
  const scores = found.flatMap((each, i) => Array.from(each.scores, (score) => score + boosts[i]!));
  const order = Array.from(rows.keys()).sort(
    (a, b) => scores[b]! - scores[a]! || plain[b]! - plain[a]! || rows[a]! - rows[b]!,
  );
  const best = order.slice(0, k);
  return {
    rows: Int32Array.from(best, (place) => rows[place]!),
    scores: Float64Array.from(best, (place) => scores[place]!),
    eligible: found.reduce((sum, each) => sum + each.eligible, 0),
  };
}
