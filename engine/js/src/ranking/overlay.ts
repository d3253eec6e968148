/** What a device changed of a bundle's catalog, as a scorer uses it. */

import type { Int8Index } from "../kernels/kernelSet.js";
import type { RowMask } from "../kernels/rowMask.js";
import { type ChangedRows, NOTHING_CHANGED } from "../rules/catalogAttributes.js";
import type { QuantizedRows } from "./quantization.js";

/** The record of an added item has `id`, `text` and attributes, that of a removed one no `text`. */
export interface OverlayRecord {
  readonly id: string;
  readonly text?: string;

  /** When the app made the call, in ms since 1970. */
  readonly added_ms: number;

  readonly [attribute: string]: unknown;
}

/** The vectors of added items, and the index that searches them. */
export interface AddedVectors extends QuantizedRows {
  readonly index: Int8Index;

  /** The vectors [d] as they were before they were quantized. */
  readonly floats: readonly Float32Array[];
}

/** Vectors [d] of texts that need not be encoded, by the ids of added items. */
export type KnownVectors = ReadonlyMap<string, Float32Array>;

/** The items that this device added to a bundle's catalog or removed from it. */
export interface CatalogOverlay {
  /** All records; the last record of an id counts, and there is no other. */
  readonly records: readonly OverlayRecord[];

  /** Those of `records` that are added items. */
  readonly added: readonly OverlayRecord[];

  /** Null where there are none. */
  readonly vectors: AddedVectors | null;

  /** The bundle's rows that are replaced or removed. */
  readonly mask: RowMask | null;

  /** The attributes that the app changed of the bundle's items, by row. */
  readonly changed: ChangedRows;
}

/** The overlay of an untouched catalog. */
export const EMPTY_OVERLAY: CatalogOverlay = {
  records: [],
  added: [],
  vectors: null,
  mask: null,
  changed: NOTHING_CHANGED,
};
