/** Canonical JSON as The Update Framework signs it: the same bytes for the same content. */

/**
 * Returns a value of JSON with sorted keys, without spaces, only `"` and `\` escaped in texts.
 *
 * Throws `RangeError` for a number that is not whole, or too large for JavaScript to hold.
 */
export function canonicalJson(value: unknown): string {
  if (typeof value === "string") {
    return canonicalText(value);
  }
  if (typeof value === "number") {
    if (!Number.isSafeInteger(value)) {
      throw new RangeError(`expected whole numbers below 2^53, found ${value}`);
    }
    return String(value);
  }
  if (Array.isArray(value)) {
    return `[${value.map(canonicalJson).join(",")}]`;
  }
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value).sort(([a], [b]) => compareTexts(a, b));
    const parts = entries.map(([key, each]) => `${canonicalText(key)}:${canonicalJson(each)}`);
    return `{${parts.join(",")}}`;
  }
  return String(value); // true, false and null
}

function canonicalText(text: string): string {
  return `"${text.replace(/["\\]/g, "\\$&")}"`;
}

/** Compares by code points, as Python does: JavaScript's own order is that of UTF-16 units. */
function compareTexts(a: string, b: string): number {
  const left = Array.from(a, (character) => character.codePointAt(0)!);
  const right = Array.from(b, (character) => character.codePointAt(0)!);
  const differing = left.findIndex((code, i) => code !== right[i]);
  return differing < 0 ? left.length - right.length : left[differing]! - (right[differing] ?? -1);
}
