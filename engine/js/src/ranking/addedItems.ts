/**
 * The vectors of items that a device added: from their texts and typed attributes, as the lab gives
 * them to new items of its catalog.
 */

import type { Bundle } from "../bundle/bundle.js";
import type { FeatureSchema } from "../bundle/features.js";
import { isList, valueOf } from "../json.js";
import { pythonFloat } from "../runtime/structs.js";
import { trimmed } from "../unicode.js";
import type { FeatureMap } from "./features.js";
import { addProduct } from "./matrix.js";
import type { OverlayRecord } from "./overlay.js";
import type { BundleTextEncoder } from "./textEncoder.js";

/** What places new items of a bundle. */
export interface Placing {
  readonly bundle: Bundle;
  readonly encoder: BundleTextEncoder;
  readonly itemFeatures: FeatureMap | null;
}

/**
 * Returns the vector [d] of a new item, given what `upsertItems` got; its text's vector is kept for
 * the next time unless `keep` is false.
 */
export async function vectorOfNew(
  { bundle, encoder, itemFeatures }: Placing,
  record: OverlayRecord,
  keep = true,
): Promise<Float32Array> {
  const text = itemText(record, itemFeatures?.tensors.schema ?? null);
  const encoded = await encoder.encodeItem(text, keep);
  const sums = new Float64Array(bundle.manifest.sizes.dim);
  addProduct(sums, bundle.policy["item.project"], encoded);
  if (itemFeatures !== null) {
    addProduct(sums, itemFeatures.tensors.project, itemFeatures.of(record));
  }
  return Float32Array.from(sums);
}

/** Returns whether two records of an item have the same vector, without encoding a text. */
export function isPlacedAlike(
  { itemFeatures }: Placing,
  first: OverlayRecord | undefined,
  second: OverlayRecord,
): boolean {
  if (first?.text === undefined) {
    return false;
  }
  const schema = itemFeatures?.tensors.schema ?? null;
  if (itemText(first, schema) !== itemText(second, schema)) {
    return false;
  }
  const features = itemFeatures?.of(second);
  return itemFeatures?.of(first).every((feature, i) => feature === features![i]) ?? true;
}

/** Returns the text of an added item as the lab's language model reads a catalog's. */
export function itemText(record: OverlayRecord, schema: FeatureSchema | null): string {
  const text = record.text!;
  if (schema === null) {
    return text;
  }
  // Without a title an added item is shown with its text, which is no second one.
  const names = schema.texts.filter((name) => name !== "title" || record["title"] !== text);
  const parts = names.flatMap((name) => {
    const value = valueOf(record, name);
    const isEmpty = value === null || value === "" || (isList(value) && value.length === 0);
    return isEmpty ? [] : `${name}: ${wordsOf(value)}`;
  });
  return [trimmed(text), ...parts].filter((part) => part !== "").join(". ");
}

/** Returns a value in words, as Python writes it: the lab's texts are made by Python. */
function wordsOf(value: unknown): string {
  if (isList(value)) {
    return value.map((each) => (isList(each) ? JSON.stringify(each) : wordsOf(each))).join(" ");
  }
  switch (typeof value) {
    case "string":
      return value;
    case "boolean":
      return value ? "True" : "False";
    case "number":
      return Number.isInteger(value) ? String(value) : pythonFloat(value);
    default:
      return value === null ? "None" : JSON.stringify(value);
  }
}
