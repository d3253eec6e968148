/** What an app calls without a decision: search by words, similar items, vectors of texts. */

import { checkK, checkNames, checkTexts, type ItemOrId } from "./arguments.js";
import { CatalogCalls } from "./engineCatalog.js";
import { shown } from "./errors.js";
import type { SearchResult } from "./kernels/kernelSet.js";
import type { Masks } from "./ranking/eligibility.js";
import type { Scorer } from "./ranking/scorer.js";
import type { Where } from "./rules/types.js";
import { parseRule } from "./rules/where.js";
import { ItemSearch } from "./search/itemSearch.js";
import { MAX_QUERY, wordsIn } from "./search/textSearch.js";
import { FoundItems } from "./slate.js";
import { cut } from "./unicode.js";
import { userVector } from "./users/recommendation.js";

/** What limits a search. */
export interface SimilarArguments {
  /** At most so many items, 1 to 1000; 10 unless given. */
  readonly k?: number;

  /** A rule that items must meet, as in `recommend`. */
  readonly where?: Where | null;
}

/** What limits a search by words. */
export interface SearchArguments extends SimilarArguments {
  /** Whose taste counts; that of a new user unless given. */
  readonly user?: string | null;
}

/**
 * The calls of `Engine` that find items or read texts. Nothing is recorded, so nothing can be
 * rewarded.
 */
export class SearchCalls extends CatalogCalls {
  protected readonly itemSearch = new ItemSearch();

  /**
   * Returns the k best items for a query: by its words, its meaning and the user's taste.
   *
   * Words are looked for in titles and texts of attributes. The last word may be unfinished, and a
   * word that no item has may have one typing error. Without an encoder only items with a word of
   * the query are found. The first search reads the whole catalog (see `warmUp`). docs/SEARCH.md
   * defines the score.
   *
   * Characters beyond 512 and words beyond 16 are ignored; a query without words finds nothing.
   * Throws `TypeError` for an argument of a wrong type, `RangeError` unless 1 <= k <= 1000, and for
   * what is no rule, `BundleError` where the catalog cannot be read.
   */
  async search(query: string, given: SearchArguments = {}): Promise<FoundItems> {
    checkTexts({ query });
    checkNames("search", given, ["user", "k", "where"]);
    const { user = null, where } = given;
    if (user !== null) {
      checkTexts({ user });
    }
    const k = checkK(given.k ?? 10);
    const nowMs = await this.beginCall();
    const hasWords = wordsIn(query).length > 0;
    return this.#tried(where, async (scorer, masks) => {
      if (!hasWords) {
        return new FoundItems(scorer.bundle.manifest.release, []);
      }
      const taste = this.#taste(scorer, user, nowMs);
      const meaning = await this.recommender.encode(scorer, cut(query, MAX_QUERY));
      const search = this.itemSearch.text(scorer);
      return foundItems(scorer, search.search(query, k, taste, meaning, masks));
    });
  }

  /**
   * Returns the k items most like an item, which is left out; scores are cosines.
   *
   * Items are compared by the vectors that the policy has learned of them, which those added on the
   * device have from their text. Throws `TypeError` for an argument of a wrong type, `RangeError`
   * for an item that is not in the catalog, for what is no rule, and unless 1 <= k <= 1000.
   */
  async similar(item: ItemOrId, given: SimilarArguments = {}): Promise<FoundItems> {
    const id = typeof item === "string" ? item : item?.id;
    checkTexts({ item: id });
    checkNames("similar", given, ["k", "where"]);
    const k = checkK(given.k ?? 10);
    await this.beginCall();
    const found = await this.#tried(given.where, async (scorer, masks) => {
      const row = scorer.find(id);
      return row === null
        ? null
        : foundItems(scorer, this.itemSearch.similar(scorer).nearest(row, k, masks));
    });
    if (found === null) {
      throw new RangeError(`item: expected an item of the catalog, found ${shown(id)}`);
    }
    return found;
  }

  /**
   * Returns the vectors of texts by the active bundle's encoder, each of length 1 and t numbers.
   *
   * For an app's own models. They are what a text as context of `recommend` becomes; a release may
   * bring another encoder. Throws `TypeError` for what are not several texts, and what the encoder
   * throws.
   */
  async encode(texts: readonly string[]): Promise<Float32Array[]> {
    if (!Array.isArray(texts)) {
      throw new TypeError(`texts: expected a list, found ${shown(texts)}`);
    }
    for (const text of texts) {
      checkTexts({ texts: text });
    }
    await this.beginCall();
    const { encoder } = this.scorer;
    const vectors = [];
    for (const text of texts) {
      vectors.push((await encoder.encode(text)).slice()); // the cache has the other
    }
    return vectors;
  }

  /**
   * Returns what is found in the active catalog, or, where that is of a release on trial and cannot
   * be searched, in the one before.
   */
  async #tried<T>(
    where: Where | null | undefined,
    find: (scorer: Scorer, masks: Masks) => Promise<T>,
  ): Promise<T> {
    const { scorer } = this;
    const masks = masksOf(scorer, where); // what is wrong with a rule is the caller's error
    try {
      return await find(scorer, masks);
    } catch (error) {
      const next = await this.active.scorerAfter(scorer, error);
      return find(next, masksOf(next, where));
    }
  }

  /** Returns the user vector [d], without a user that of a new one. */
  #taste(scorer: Scorer, user: string | null, nowMs: number): Float32Array {
    if (user === null) {
      return scorer.userModel.userVector(scorer.userModel.initialState());
    }
    return userVector(scorer, this.profiles.snapshot(user, nowMs, scorer), null);
  }
}

/** Returns which rows a request may not find. */
function masksOf(scorer: Scorer, where: Where | null | undefined): Masks {
  return scorer.eligible(where == null ? null : parseRule(where), null).masks;
}

function foundItems(scorer: Scorer, result: SearchResult): FoundItems {
  const items = Array.from(result.rows, (row, i) => {
    const { id, title, attributes } = scorer.item(row);
    return { id, title, score: result.scores[i]!, attributes: { ...attributes } };
  });
  return new FoundItems(scorer.bundle.manifest.release, items);
}
