/** Bytes of JSON in a bundle -> objects. */

import { BundleError, typeName } from "../errors.js";

// Wrong bytes are an error, and a byte order mark is no JSON.
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Returns the object that some bytes hold as JSON; throws `BundleError` that begins with `place`. */
export function decodeJson(place: string, bytes: Uint8Array): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(bytes));
  } catch (error) {
    throw new BundleError(`${place}: ${(error as Error).message}`);
  }
  if (typeName(value) !== "object") {
    throw new BundleError(`${place}: expected an object, found ${typeName(value)}`);
  }
  return value as Record<string, unknown>;
}
