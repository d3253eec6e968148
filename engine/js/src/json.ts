/** Values that JSON can hold, and the fields of records that are read from it. */

import type { Attributes } from "./slate.js";

/** Returns whether a value of JSON is an object. */
export function isObject(value: unknown): value is Attributes {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Returns whether a value of JSON is a list. */
export function isList(value: unknown): value is readonly unknown[] {
  return Array.isArray(value);
}

/** Returns the value of a name that an object itself has, null without it. */
export function valueOf(record: Attributes, name: string): unknown {
  // An attribute may be called `constructor`, which every object inherits.
  return Object.hasOwn(record, name) ? record[name] : null;
}
