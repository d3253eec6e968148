/** Attributes that the app changed on this device, without a change of text or vector. */

import { MAX_ID } from "../bundle/manifest.js";
import { shown, typeName } from "../errors.js";
import type { Attributes } from "../slate.js";
import { countCharacters, cut } from "../unicode.js";

const FIXED = ["added_ms", "id", "text", "title"];

/** Attributes by item id; null for one that was taken away. */
export type Changes = ReadonlyMap<string, Attributes>;

/** Changes that were made at one time. */
export interface ChangeBatch {
  /** In ms since 1970. */
  readonly changed_ms: number;

  readonly items: { readonly [item: string]: Attributes };
}

/** What is asked of a bundle. */
export interface BundleRecords {
  /** When the bundle was created, in milliseconds since 1970. */
  readonly createdMs: number;

  /** Returns the row of an item id, or null when it is not in the bundle. */
  find(item: string): number | null;

  /** Returns the catalog's entry of a row. */
  record(row: number): Attributes;
}

/**
 * Returns changed attributes by item id, as JSON reads them.
 *
 * Throws `TypeError` for another form, `RangeError` for an id or an attribute that cannot be
 * changed, and for a value that JSON cannot hold; both name the item.
 */
export function checkedChanges(changes: unknown): Changes {
  if (!isMapping(changes)) {
    throw new TypeError(
      "changes: expected a mapping such as {'sku-1': {'stock': 0}}, found" +
        ` ${typeName(changes)} ${shown(changes)}`,
    );
  }
  const checked = new Map<string, Attributes>();
  for (const [item, attributes] of Object.entries(changes)) {
    checkItem(item, attributes);
    checked.set(item, asJson(item, attributes as object));
  }
  return checked;
}

function isMapping(value: unknown): value is { readonly [name: string]: unknown } {
  return Object.prototype.toString.call(value) === "[object Object]";
}

function checkItem(item: string, attributes: unknown): void {
  const length = countCharacters(item);
  if (length < 1 || length > MAX_ID) {
    throw new RangeError(
      `changes: expected ids of 1 to ${MAX_ID} characters, found ${shown(item)}`,
    );
  }
  if (!isMapping(attributes)) {
    throw new TypeError(
      `changes: ${cut(item, 80)}: expected attributes by name, found ${shown(attributes)}`,
    );
  }
  const fixed = FIXED.filter((name) => Object.hasOwn(attributes, name));
  if (fixed.length > 0) {
    throw new RangeError(
      `changes: ${cut(item, 80)}: expected attributes, found ${fixed.join(", ")}: use` +
        " `upsertItems` to change what an item is",
    );
  }
}

function asJson(item: string, attributes: object): Attributes {
  try {
    const read: [string, unknown][] = Object.entries(attributes).map(([name, value]) => {
      const text = JSON.stringify(value) as string | undefined;
      if (text === undefined) {
        throw new TypeError(`a value of type ${typeName(value)} in ${name}`);
      }
      return [name, JSON.parse(text) as unknown];
    });
    return Object.fromEntries(read);
  } catch (error) {
    throw new RangeError(
      `changes: ${cut(item, 80)}: expected values that JSON can hold, found` +
        ` ${(error as Error).message}`,
    );
  }
}

/**
 * Returns what still applies when a bundle is active, of items that were added `addedMs`.
 *
 * As an added item does, a changed attribute gives way to a bundle that was created later and has
 * it; so does one of an added item to a later `upsertItems`.
 */
export function changesInForce(
  batches: Iterable<ChangeBatch>,
  bundle: BundleRecords,
  addedMs: ReadonlyMap<string, number>,
): Changes {
  const merged = new Map<string, Attributes>();
  for (const batch of batches) {
    for (const [item, given] of Object.entries(batch.items)) {
      if (batch.changed_ms < (addedMs.get(item) ?? 0)) {
        continue;
      }
      const isOlder = batch.changed_ms < bundle.createdMs && !addedMs.has(item);
      const attributes = isOlder ? withoutKnown(bundle, item, given) : given;
      if (Object.keys(attributes).length > 0) {
        merged.set(item, { ...merged.get(item), ...attributes });
      }
    }
  }
  return merged;
}

/** Returns the attributes of an item that a bundle's catalog does not have. */
function withoutKnown(bundle: BundleRecords, item: string, attributes: Attributes): Attributes {
  const row = bundle.find(item);
  const known = row === null ? {} : bundle.record(row);
  const left = Object.entries(attributes).filter(
    ([name]) => !Object.hasOwn(known, name) || known[name] === null,
  );
  return Object.fromEntries(left);
}
