/** Which of the items that an app pinned may be shown: a pin never breaks another rule. */

import type { Pins } from "../decision.js";
import { shown } from "../errors.js";
import type { Eligibility } from "../ranking/eligibility.js";
import { NO_ROWS } from "../ranking/rows.js";
import { firstWithin, type Cap } from "./caps.js";

/** No pins. */
export const NOTHING_PINNED: Pins = { slots: [], rows: NO_ROWS };

/** What is asked of a catalog. */
export interface PinCatalog {
  /** Returns the row of an item id, or null. */
  find(item: string): number | null;

  /** Returns whether the app removed this item from the device. */
  isRemoved(item: string): boolean;
}

/** Throws `RangeError` for the id of an item that was never in the catalog. */
export function checkKnown(catalog: PinCatalog, pin: ReadonlyMap<number, string>): void {
  for (const [slot, item] of pin) {
    if (catalog.find(item) === null && !catalog.isRemoved(item)) {
      throw new RangeError(
        `pin: slot ${slot}: expected an item of the catalog, found ${shown(item)}; correct` +
          " the id, or add the item with `upsertItems`",
      );
    }
  }
}

/**
 * Returns the pins, by slot, whose items may be shown.
 *
 * Left out are items that were removed on this device or are not eligible, those of the rows
 * `excluded`, and those for which the pins before them leave no room under the caps.
 */
export function pinsInForce(
  catalog: PinCatalog,
  pin: ReadonlyMap<number, string>,
  excluded: Int32Array,
  caps: readonly Cap[],
  eligible: Eligibility,
): Pins {
  const isExcluded = new Set(excluded);
  const slots: number[] = [];
  const rows: number[] = [];
  for (const slot of [...pin.keys()].sort((a, b) => a - b)) {
    const item = pin.get(slot)!;
    const row = catalog.find(item);
    const mayShow = row !== null && !catalog.isRemoved(item) && !isExcluded.has(row);
    if (mayShow && eligible.holds(row)) {
      slots.push(slot);
      rows.push(row);
    }
  }
  const fits = firstWithin(caps, Int32Array.from(rows));
  return {
    slots: slots.filter((_, i) => fits[i]),
    rows: Int32Array.from(rows.filter((_, i) => fits[i])),
  };
}
