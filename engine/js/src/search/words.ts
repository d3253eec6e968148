/**
 * Text -> the words by which it is indexed and searched, in any script.
 *
 * Letters are compared without case, accents and compatibility forms. Where a script has no spaces
 * between words (Chinese, Japanese, Korean particles, Thai, Lao, Khmer, Burmese), single characters
 * and pairs of neighbours stand for words, as in Lucene's CJKBigramFilter.
 */

import { casefold, cut, isAscii } from "../unicode.js";

const MAX_WORD = 32; // characters; the rest of a longer word is ignored
const MEAN_WORD = 16; // characters that are read for each word asked for, spaces included

const ASCII_WORD = /[a-z0-9]+/g;

// Letters, digits, and the marks that Indic vowels are, but for selectors of variants of glyphs.
const UNICODE_WORD = /(?:[\p{L}\p{N}]|(?![\u{e0100}-\u{e01ef}])\p{M})+/gu;

// Marks that writers leave out: accents, Hebrew points, Arabic vowels and the stroke that widens.
const ACCENTS = /[\u0300-\u036f\u0591-\u05c7\u0640\u064b-\u065f]/g;

// Thai and Lao, Burmese, Khmer, kana and bopomofo, Han (with its repetition marks), Hangul.
const UNSPACED =
  "\\u0e00-\\u0eff\\u1000-\\u109f\\u1780-\\u17ff\\u3005-\\u3007\\u3040-\\u312f\\u31a0-\\u31bf" +
  "\\u31f0-\\u31ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\uac00-\\ud7a3\\uf900-\\ufaff" +
  "\\u{20000}-\\u{3ffff}";
const RUNS = new RegExp(`[${UNSPACED}]+|[^${UNSPACED}]+`, "gu");
const BEGINS_UNSPACED = new RegExp(`^[${UNSPACED}]`, "u");

/**
 * Returns the first words of a text, at most so many, in their order, with repetitions.
 *
 * "Men's" is two words, as "l'été" is: who types "mens" is one edit away.
 */
export function wordsOf(text: string, atMost: number): string[] {
  const read = cut(text, atMost * MEAN_WORD);
  if (isAscii(read)) {
    const found = read.toLowerCase().match(ASCII_WORD) ?? [];
    return found.slice(0, atMost).map((word) => word.slice(0, MAX_WORD));
  }
  const words: string[] = [];
  for (const [word] of fold(read).matchAll(UNICODE_WORD)) {
    for (const run of word.match(RUNS) ?? []) {
      words.push(...(isUnspaced(run) ? grams(run) : [cut(run, MAX_WORD)]));
    }
    if (words.length >= atMost) {
      break;
    }
  }
  return words.slice(0, atMost);
}

/** Returns a text without case, accents and compatibility forms. */
function fold(text: string): string {
  return casefold(text.normalize("NFKD")).replace(ACCENTS, "").normalize("NFC");
}

/** Returns whether a word is a character or a pair of a script without spaces. */
export function isUnspaced(word: string): boolean {
  return BEGINS_UNSPACED.test(word);
}

/** Returns the characters of a run, and the pairs of neighbours. */
function grams(run: string): string[] {
  const characters = [...run];
  const pairs = characters.slice(1).map((character, i) => characters[i]! + character);
  return [...characters, ...pairs];
}
