/** The result of drawing a slate: ranks with their exact probabilities. */

/** Two uniforms in [0, 1) for each block, one after the other. */
export type Uniforms = Float64Array;

/** One slate of K slots as ranks into the greedy order; all lists have K elements. */
export interface Draw {
  /** A rank beyond the pool stands for a newcomer. */
  readonly ranks: number[];

  /** Whether a slot was drawn by exploring, even if it then drew the best item left. */
  readonly explored: boolean[];

  /**
   * The probability of each rank given the slots before it: products of these are the prefix and
   * joint propensities.
   */
  readonly conditional: number[];

  /** The probability, over all slates, that a slot shows its item; null without a closed form. */
  readonly marginal: (number | null)[];
}

/** Returns a slate of no slots, to which slots are added. */
export function emptyDraw(): Draw {
  return { ranks: [], explored: [], conditional: [], marginal: [] };
}

/** Adds one slot to a slate. */
export function pushSlot(
  draw: Draw,
  rank: number,
  explored: boolean,
  conditional: number,
  marginal: number | null,
): void {
  draw.ranks.push(rank);
  draw.explored.push(explored);
  draw.conditional.push(conditional);
  draw.marginal.push(marginal);
}

/** Returns the slate with the `fixed` best items before it, which are certain. */
export function withFixedPrefix(draw: Draw, fixed: number): Draw {
  const certain = draw.marginal.includes(null) ? null : 1.0;
  const longer = emptyDraw();
  for (let rank = 0; rank < fixed; rank++) {
    pushSlot(longer, rank, false, 1.0, certain);
  }
  draw.ranks.forEach((rank, slot) => {
    const marginal = draw.marginal[slot]!;
    pushSlot(longer, rank + fixed, draw.explored[slot]!, draw.conditional[slot]!, marginal);
  });
  return longer;
}
