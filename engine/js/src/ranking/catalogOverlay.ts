/** The records of items that the app added to this device or removed from it. */

import type { Bundle } from "../bundle/bundle.js";
import { MAX_ID } from "../bundle/manifest.js";
import { shown, typeName } from "../errors.js";
import { countCharacters } from "../unicode.js";
import type { OverlayRecord } from "./overlay.js";

const MAX_TEXT = 65536; // characters

/**
 * Returns the record to store for an added item; without a `title` its text is used.
 *
 * Throws `TypeError` for no record, `RangeError` naming the field that is wrong.
 */
export function addition(record: unknown, nowMs: number): OverlayRecord {
  if (typeName(record) !== "object") {
    throw new TypeError(`item: expected a record of fields, found ${typeName(record)}`);
  }
  const given = record as Readonly<Record<string, unknown>>;
  for (const field of ["id", "text"]) {
    const value = given[field];
    if (typeof value !== "string" || value === "" || countCharacters(value) > MAX_TEXT) {
      throw new RangeError(
        `item: ${field}: expected a non-empty string of at most ${MAX_TEXT} characters,` +
          ` found ${shown(value)}`,
      );
    }
  }
  const length = countCharacters(given["id"] as string);
  if (length > MAX_ID) {
    throw new RangeError(`item: id: expected at most ${MAX_ID} characters, found ${length}`);
  }
  return checked({ title: given["text"], ...given, added_ms: nowMs });
}

/** Returns the record to store for a removed item; throws `RangeError` for a wrong id. */
export function removal(item: string, nowMs: number): OverlayRecord {
  const length = countCharacters(item);
  if (length < 1 || length > MAX_ID) {
    throw new RangeError(
      `item: id: expected a string of 1 to ${MAX_ID} characters, found ${shown(item)}`,
    );
  }
  return checked({ id: item, added_ms: nowMs });
}

/**
 * Returns the record as it reads when it is read again: attributes that JSON changes, such as
 * dates, are the same before and after a restart.
 *
 * Throws `RangeError` naming the first field that JSON cannot hold.
 */
function checked(record: Record<string, unknown>): OverlayRecord {
  const fields: [string, unknown][] = [];
  for (const [field, value] of Object.entries(record)) {
    try {
      // A function or a symbol has no JSON, and would be left out without a word.
      fields.push([field, JSON.parse(JSON.stringify(value) ?? "nothing")]);
    } catch (error) {
      throw new RangeError(
        `item: ${shown(field)}: expected what JSON can hold, found ${(error as Error).message}`,
      );
    }
  }
  return Object.fromEntries(fields) as unknown as OverlayRecord;
}

/**
 * Returns the records dated no earlier than the active bundle and `afterMs`.
 *
 * A change is newer than that bundle, even where the device's clock is behind.
 */
export function datedAfter(
  records: readonly OverlayRecord[],
  bundle: Bundle,
  afterMs = 0,
): OverlayRecord[] {
  const leastMs = Math.max(bundle.manifest.created * 1000, afterMs);
  return records.map((record) => ({ ...record, added_ms: Math.max(record.added_ms, leastMs) }));
}

/**
 * Returns the records that still apply when this bundle is active.
 *
 * An added item gives way to a bundle that was created later and has its id. A removed item stays
 * removed until the app adds it again.
 */
export function inForce(records: readonly OverlayRecord[], bundle: Bundle): OverlayRecord[] {
  const createdMs = bundle.manifest.created * 1000;
  return records.filter(
    (record) =>
      record.text === undefined ||
      createdMs <= record.added_ms ||
      bundle.find(record.id) === null,
  );
}
