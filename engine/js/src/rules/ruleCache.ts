/** What requests with rules and boosts may show of one catalog, kept by rule. */

import { LruCache } from "../runtime/lruCache.js";
import type { Eligibility } from "../ranking/eligibility.js";
import { rowBoosts } from "./boosts.js";
import type { CatalogAttributes } from "./catalogAttributes.js";
import type { Boost, Rule } from "./types.js";

const CACHED_RULES = 256; // whose rows are kept, or as many as fit into
const CACHED_BYTES = 16_000_000; // where each takes 2 bytes and an eighth a row

/** Boosts take as much as so many rules do, unless they overlap in many ways. */
const RULES_PER_BOOSTS = 4;

/** The eligible items of one catalog by rule and boosts. */
export class RuleCache {
  private readonly confined: LruCache<string, Eligibility>;
  private readonly boosted: LruCache<string, Eligibility>;

  /** Keeps the rows of rules on the attributes of a catalog, given what may be shown without. */
  constructor(
    private readonly allItems: Eligibility,
    private readonly attributes: CatalogAttributes,
  ) {
    const rows = allItems.isNewcomer.length;
    const fitting = Math.floor(CACHED_BYTES / (2 * rows + Math.floor(rows / 8)));
    const size = Math.max(4, Math.min(CACHED_RULES, fitting));
    this.confined = new LruCache(size);
    this.boosted = new LruCache(Math.max(1, Math.floor(size / RULES_PER_BOOSTS)));
  }

  /**
   * Returns what may be shown under a rule, and of listed rows alone, if they are given, with what
   * boosts add to scores.
   *
   * Throws as `CatalogAttributes.matches` and `rowBoosts` do.
   */
  eligible(
    rule: Rule | null,
    listed: Int32Array | null,
    boosts: readonly Boost[],
  ): Eligibility {
    const eligible = rule === null ? this.allItems : this.confinedBy(rule);
    if (listed !== null) {
      const among = eligible.among(listed);
      return boosts.length === 0 ? among : among.boosted(rowBoosts(this.attributes, boosts));
    }
    if (boosts.length === 0) {
      return eligible;
    }
    const amounts = boosts.map((boost) => `${boost.by} ${boost.rule.canonical}`);
    const key = [rule === null ? "" : rule.canonical, ...amounts].join("\n");
    return this.boosted.getOrMake(key, () => eligible.boosted(rowBoosts(this.attributes, boosts)));
  }

  private confinedBy(rule: Rule): Eligibility {
    return this.confined.getOrMake(rule.canonical, () => {
      const isMatch = this.attributes.matches(rule);
      const n = this.allItems.items;
      return this.allItems.confined([isMatch.subarray(0, n), isMatch.subarray(n)]);
    });
  }
}
