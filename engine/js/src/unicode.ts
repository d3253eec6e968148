/** Texts as sequences of characters (code points), compared and folded as Python does it. */

const WORD = /[\p{L}\p{N}_]+(?:['’-][\p{L}\p{N}_]+)*/gu;
const BLANKS = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/u;
const PRINTABLE = /^[\p{L}\p{M}\p{N}\p{P}\p{S} ]*$/u;
const ASCII = /^[\0-\x7f]*$/;

/** Returns whether a text has no other characters than those of ASCII. */
export function isAscii(text: string): boolean {
  return ASCII.test(text);
}

/** Returns whether a text has neither control characters nor separators but for blanks. */
export function isPrintable(text: string): boolean {
  return PRINTABLE.test(text);
}

/** Returns how many characters a text has. */
export function countCharacters(text: string): number {
  let count = text.length;
  for (let i = 1; i < text.length; i++) {
    if (isLow(text.charCodeAt(i)) && isHigh(text.charCodeAt(i - 1))) {
      count -= 1;
    }
  }
  return count;
}

/** Returns the first characters of a text, at most so many. */
export function cut(text: string, atMost: number): string {
  if (text.length <= atMost) {
    return text;
  }
  let end = 0;
  for (let count = 0; count < atMost && end < text.length; count++) {
    const isPair = isHigh(text.charCodeAt(end)) && isLow(text.charCodeAt(end + 1));
    end += isPair ? 2 : 1;
  }
  return text.slice(0, end);
}

/**
 * Compares two texts by their characters, for `sort`.
 *
 * JavaScript compares UTF-16 units, which puts the characters beyond U+FFFF before those from
 * U+E000 on.
 */
export function compareTexts(first: string, second: string): number {
  const length = Math.min(first.length, second.length);
  for (let i = 0; i < length; i++) {
    const a = first.charCodeAt(i);
    const b = second.charCodeAt(i);
    if (a !== b) {
      return rank(a) - rank(b);
    }
  }
  return first.length - second.length;
}

/** Returns a text without differences of case: Unicode's full case folding. */
export function casefold(text: string): string {
  if (isAscii(text)) {
    return text.toLowerCase();
  }
  let folded = "";
  for (const character of text) {
    folded += foldedCharacter(character);
  }
  return folded;
}

/** Returns the words of a text: letters, digits and `_`, with apostrophes and hyphens inside. */
export function wordMatches(text: string): RegExpMatchArray[] {
  return [...text.matchAll(WORD)];
}

/** Returns a text with one blank between its parts, and none around them. */
export function withSingleBlanks(text: string): string {
  return text
    .split(BLANKS)
    .filter((part) => part !== "")
    .join(" ");
}

/** Returns a text without the blanks around it. */
export function trimmed(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && BLANKS.test(text[start]!)) {
    start += 1;
  }
  while (start < end && BLANKS.test(text[end - 1]!)) {
    end -= 1;
  }
  return text.slice(start, end);
}

function foldedCharacter(character: string): string {
  const code = character.codePointAt(0)!;
  if (code === 0x131) {
    return character; // its capital is that of i
  }
  if (code === 0x1e9e) {
    return "ss"; // its small letter would be ß, which folds to ss as well
  }
  // By way of capitals, several small letters of which have one.
  const capital = character.toUpperCase();
  // Cherokee folds to capitals, since its small letters came later.
  const isCherokee = (code >= 0x13a0 && code <= 0x13fd) || (code >= 0xab70 && code <= 0xabbf);
  return isCherokee ? capital : capital.toLowerCase();
}

function isHigh(unit: number): boolean {
  return unit >= 0xd800 && unit < 0xdc00;
}

function isLow(unit: number): boolean {
  return unit >= 0xdc00 && unit < 0xe000;
}

/** Returns a UTF-16 unit's place in the order of characters. */
function rank(unit: number): number {
  return unit >= 0xd800 && unit < 0xe000 ? unit + 0x10000 : unit;
}
