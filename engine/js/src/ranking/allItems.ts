/** What may be shown of a catalog without rules: all but replaced and removed items. */

import type { Bundle } from "../bundle/bundle.js";
import { Eligibility } from "./eligibility.js";
import type { CatalogOverlay } from "./overlay.js";
import { concatenate } from "./rows.js";

/** Returns the eligible items of a bundle with what the device changed, and their newcomers. */
export function allItemsOf(bundle: Bundle, overlay: CatalogOverlay): Eligibility {
  const { items } = bundle.manifest.sizes;
  const { mask, added } = overlay;
  const listed = bundle.items.newcomers;
  const known = new Set(listed);
  // A changed text makes no newcomer of an item that the fleet knows.
  const addedNewcomers = added.flatMap((record, i) => {
    const row = bundle.find(record.id);
    return row === null || known.has(row) ? [items + i] : [];
  });
  const visible = listed.filter((row) => mask === null || mask.hidden[row] === 0);
  const newcomers = concatenate(visible, Int32Array.from(addedNewcomers));
  const isNewcomer = new Uint8Array(items + added.length + 1);
  for (const row of newcomers) {
    isNewcomer[row] = 1;
  }
  return new Eligibility({ items, masks: [mask, null], newcomers, isNewcomer });
}
