/** What a slate shows of an item: its entry in the catalog, of the bundle or of the device. */

import type { Bundle } from "../bundle/bundle.js";
import type { Attributes } from "../slate.js";
import type { CatalogOverlay } from "./overlay.js";

/** The catalog's entry of an item. */
export interface CatalogItem {
  readonly id: string;
  readonly title: string;
  readonly attributes: Attributes;
}

/**
 * Returns the entry of a row: the bundle's or an added item's, with what the app changed.
 *
 * Vectors are not shown: a bundle does not have those of its items either.
 */
export function readItem(bundle: Bundle, overlay: CatalogOverlay, row: number): CatalogItem {
  const { items } = bundle.manifest.sizes;
  const record = row < items ? bundle.record(row) : overlay.added[row - items]!;
  const { id, title, ...stored } = record;
  const changed = overlay.changed.get(row) ?? {};
  const values = Object.entries(stored).filter(
    ([name]) => bundle.columns?.types.get(name) !== "vector",
  );
  const shown = Object.entries({ ...Object.fromEntries(values), ...changed }).filter(
    ([name, value]) => value !== null || !Object.hasOwn(changed, name),
  );
  return { id: id as string, title: String(title ?? ""), attributes: Object.fromEntries(shown) };
}
