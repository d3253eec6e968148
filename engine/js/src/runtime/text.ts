/** Texts as bytes, and bytes as base64 and as hex digits. */

// With `u` a pair is one character, which does not match.
const LONE_SURROGATE = /[\uD800-\uDFFF]/u;

const encoder = new TextEncoder();

/** Returns whether a text has no half of a character. */
export function isWellFormed(text: string): boolean {
  // `String.prototype.isWellFormed` is missing before Safari 16.4.
  return !LONE_SURROGATE.test(text);
}

/** Returns the UTF-8 of a text; half of a character as Python's `surrogatepass` writes it. */
export function utf8(text: string): Uint8Array {
  if (isWellFormed(text)) {
    return encoder.encode(text);
  }
  // TextEncoder replaces such halves by U+FFFD: different texts would get the same bytes.
  const bytes = Array.from(text, (character) => {
    const code = character.codePointAt(0)!;
    const isLone = code >= 0xd800 && code <= 0xdfff;
    return isLone
      ? [0xe0 | (code >> 12), 0x80 | ((code >> 6) & 0x3f), 0x80 | (code & 0x3f)]
      : [...encoder.encode(character)];
  });
  return Uint8Array.from(bytes.flat());
}

/** Returns the number of bytes of a text in UTF-8, without making them. */
export function utf8Length(text: string): number {
  let bytes = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    // Each half of a pair counts two: a pair has four bytes.
    bytes += code < 0x80 ? 1 : code < 0x800 || (code >= 0xd800 && code <= 0xdfff) ? 2 : 3;
  }
  return bytes;
}

/** Returns the base64 of bytes. */
export function base64(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) {
    text += String.fromCharCode(byte);
  }
  return btoa(text);
}

/** Returns the bytes of base64; throws for anything else. */
export function unbase64(code: string): Uint8Array {
  return Uint8Array.from(atob(code), (character) => character.charCodeAt(0));
}

/** Returns bytes as lower-case hex digits. */
export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Returns the bytes of hex digits. */
export function unhex(digits: string): Uint8Array {
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}
