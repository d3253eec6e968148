/** The rules of a bundle, which hold for every request beside its own. */

import type { Bundle } from "../bundle/bundle.js";
import type { Rules } from "../bundle/manifest.js";
import type { RecommendRequest } from "../decision.js";
import { BundleError } from "../errors.js";
import type { Scorer } from "../ranking/scorer.js";
import { MAX_BOOSTS, NO_BOOSTS, parseBoosts } from "./boosts.js";
import type { Boost, Rule } from "./types.js";
import { both, parseRule } from "./where.js";

/** The rules of one bundle, checked. */
export interface BundleRules {
  readonly where: Rule | null;
  readonly atMost: ReadonlyMap<string, number>;
  readonly boost: readonly Boost[];
  readonly diversity: number;
}

/** What a bundle without rules has. */
const NO_RULES: BundleRules = {
  where: null,
  atMost: new Map(),
  boost: NO_BOOSTS,
  diversity: 0.0,
};

const parsed = new WeakMap<Bundle, BundleRules>();

/** Returns the rules of a bundle, which are read once; throws as `parseBundleRules` does. */
export function rulesOf(bundle: Bundle): BundleRules {
  let rules = parsed.get(bundle);
  if (rules === undefined) {
    rules = parseBundleRules(bundle.manifest.rules);
    parsed.set(bundle, rules);
  }
  return rules;
}

/** Returns the rules of a manifest; throws `BundleError` for what is none. */
export function parseBundleRules(given: Rules | null): BundleRules {
  if (given === null) {
    return NO_RULES;
  }
  try {
    return {
      where: Object.keys(given.where).length > 0 ? parseRule(given.where) : null,
      atMost: given.at_most,
      boost: parseBoosts(given.boost),
      diversity: given.diversity,
    };
  } catch (error) {
    throw new BundleError(`manifest.json: rules: ${(error as Error).message}`);
  }
}

/**
 * Returns what is wrong with a bundle's rules in its catalog: an attribute that no item has, or
 * that no item meets them; null for nothing. Throws `BundleError` for what is no rule.
 */
export function faultInRules(scorer: Scorer): string | null {
  const { where, boost } = rulesOf(scorer.bundle);
  if (where === null && boost.length === 0) {
    return null;
  }
  const user = scorer.userModel.userVector(scorer.userModel.initialState());
  try {
    const eligible = scorer.eligible(where, null, boost);
    return scorer.rank(user, 1, { eligible }).eligible > 0
      ? null
      : "where: expected a rule that some items meet, found one of none";
  } catch (error) {
    return (error as Error).message;
  }
}

/**
 * Returns a request that asks for the rules of a bundle, too.
 *
 * Of two caps on an attribute the smaller one counts, of two diversities the request's own.
 *
 * Throws `RangeError` where the boosts of both are more than 16.
 */
export function withBundleRules(rules: BundleRules, request: RecommendRequest): RecommendRequest {
  if (rules === NO_RULES) {
    return request;
  }
  const atMost = new Map(rules.atMost);
  for (const [attribute, cap] of request.atMost) {
    atMost.set(attribute, Math.min(cap, atMost.get(attribute) ?? cap));
  }
  if (rules.boost.length + request.boost.length > MAX_BOOSTS) {
    throw new RangeError(
      `boost: expected at most ${MAX_BOOSTS} entries, of which the bundle's rules have` +
        ` ${rules.boost.length}, found ${request.boost.length} more`,
    );
  }
  return {
    ...request,
    where: both(rules.where, request.where),
    atMost,
    boost: [...rules.boost, ...request.boost],
    diversity: request.diversity || rules.diversity,
  };
}
