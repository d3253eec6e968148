/**
 * Pinned slots: the app chose their items, and the other slots are a plain slate of the scheme.
 *
 * A pinned slot shows its item with probability 1. What a scheme draws does not depend on which
 * slots it fills, so the propensities of the other slots stay those of their shorter slate.
 */

import type { Exploration } from "../bundle/manifest.js";
import { type Draw, emptyDraw, pushSlot } from "./draw.js";

/** Returns the plan of the slots that are not pinned: of the guarded ones fewer may be left. */
export function planOfOthers(plan: Exploration, pinned: readonly number[]): Exploration {
  const pinnedGuarded = pinned.filter((slot) => slot < plan.guarded).length;
  return { ...plan, guarded: plan.guarded - pinnedGuarded };
}

/**
 * Returns the slate that shows pins in the slots `pinned`, ascending, and a draw in the others.
 *
 * Pin i gets the rank `firstRank` + i. Where the draw is too short to reach a pinned slot, its pin
 * follows the last drawn item.
 */
export function withPins(drawn: Draw, pinned: readonly number[], firstRank: number): Draw {
  const slate = emptyDraw();
  let pins = 0;
  let next = 0;
  for (let slot = 0; slot < drawn.ranks.length + pinned.length; slot++) {
    const isPinned = slot >= (pinned[pins] ?? Infinity) || next === drawn.ranks.length;
    if (isPinned) {
      pushSlot(slate, firstRank + pins, false, 1.0, 1.0);
      pins += 1;
    } else {
      const rank = drawn.ranks[next]!;
      const marginal = drawn.marginal[next]!;
      pushSlot(slate, rank, drawn.explored[next]!, drawn.conditional[next]!, marginal);
      next += 1;
    }
  }
  return slate;
}
