/** Scores the items of a bundle, and those that this device added, for a user vector. */

/** The catalog's entry of an item. */
export interface CatalogItem {
  readonly id: string;
  readonly title: string;
  readonly attributes: Readonly<Record<string, unknown>>;
}

/**
 * Scores users against items; rows 0 … n-1 are the bundle's items, row n + i is added item i.
 *
 * A changed catalog makes another scorer.
 */
export interface Scorer {
  /** Names the space of user states and vectors: those of another space mean nothing here. */
  readonly space: string;

  /** Returns the row of an item id, or null: it is in neither the bundle nor the overlay. */
  find(item: string): number | null;

  /** Returns the catalog's entry of a row. */
  item(row: number): CatalogItem;

  /** Returns the vector [d] of a row: its int8 row times its scale. */
  vector(row: number): Float32Array;
}
