/** Bytes of JSON in a bundle -> values. */

import { BundleError } from "../errors.js";
import { nameOf } from "../runtime/structs.js";

// Wrong bytes are an error, and a byte order mark is no JSON.
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Returns the object that some bytes hold as JSON.
 *
 * Throws `BundleError`, in whose message `place` comes first.
 */
export function decodeJson(place: string, bytes: Uint8Array): Record<string, unknown> {
  const text = decodeText(place, bytes);
  // An array is wrong already before where it may break off.
  const value = text.trimStart().startsWith("[") ? [] : parseJson(place, text);
  if (nameOf(value) !== "object") {
    throw new BundleError(`${place}: Expected \`object\`, got \`${nameOf(value)}\``);
  }
  return value as Record<string, unknown>;
}

/** Returns the text that some bytes hold as UTF-8; throws `BundleError` for other bytes. */
export function decodeText(place: string, bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new BundleError(`${place}: expected UTF-8, found other bytes`);
  }
}

/** Returns the value that a text holds as JSON; throws `BundleError` for any other text. */
export function parseJson(place: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new BundleError(`${place}: JSON is malformed: ${(error as Error).message}`);
  }
}

/** Returns texts as Python writes a list of them, so that errors read the same. */
export function pythonList(texts: readonly string[]): string {
  const quoted = texts.map((text) => {
    const escaped = text.replace(
      /[\0-\x1f\x7f]/g,
      (unit) => `\\x${unit.charCodeAt(0).toString(16).padStart(2, "0")}`,
    );
    return `'${escaped}'`;
  });
  return `[${quoted.join(", ")}]`;
}
