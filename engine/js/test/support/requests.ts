/** Requests of the conformance set. */

import { checkCaps, checkDiversity, checkPins } from "../../src/arguments.js";
import type { RecommendRequest } from "../../src/decision.js";
import { NO_CONTEXT } from "../../src/ranking/contexts.js";
import { parseBoosts } from "../../src/rules/boosts.js";
import { parseRule } from "../../src/rules/where.js";
import type { Case } from "./conformance.js";

/** Returns the request of a case's arguments; `after` holds the ids of the pages before. */
export function requestOf(given: Case): RecommendRequest {
  return {
    user: "user",
    k: given["k"],
    context: NO_CONTEXT,
    exclude: given["exclude"] ?? [],
    atMost: checkCaps(given["at_most"] ?? {}),
    pin: checkPins(given["pin"] ?? {}, given["k"]),
    where: "where" in given ? parseRule(given["where"]) : null,
    among: given["among"] ?? null,
    earlier: given["after"] ?? [],
    diversity: checkDiversity(given["diversity"] ?? 0.0),
    boost: parseBoosts(given["boost"] ?? []),
  };
}
