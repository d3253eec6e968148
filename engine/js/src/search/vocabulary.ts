/**
 * The distinct words of a catalog in their order: exact words, prefixes, and words one edit away.
 *
 * An edit replaces, inserts or leaves out one character, or swaps two neighbours (the restricted
 * distance of Damerau and Levenshtein).
 */

import { LruCache } from "../runtime/lruCache.js";
import { compareTexts } from "../unicode.js";

const CACHED_PREFIXES = 4096; // whose next characters are kept
const BEYOND = "\u{10ffff}"; // no character sorts behind it, and no word has it

/** The words `first` to `last - 1`, by their place in the order. */
export interface Span {
  readonly first: number;
  readonly last: number;
}

/** The words of a catalog, distinct and ascending. */
export class Vocabulary {
  private readonly nextCharacters = new LruCache<string, readonly string[]>(CACHED_PREFIXES);

  constructor(readonly words: readonly string[]) {}

  /** Returns the place of a word, or null. */
  find(word: string): number | null {
    const place = this.firstFrom(word, 0, this.words.length);
    return this.words[place] === word ? place : null;
  }

  /** Returns the span of the words that begin with a prefix. */
  withPrefix(prefix: string): Span {
    return this.narrow({ first: 0, last: this.words.length }, prefix);
  }

  /**
   * Returns spans of the words that are one edit from `word`, or that begin with such a word if it
   * `isPrefix`; they do not overlap, and the word itself is in none.
   *
   * A word whose beginning is one edit from `word` may also begin with `word`.
   */
  oneEditAway(word: string, isPrefix = false): Span[] {
    const edited = new Set(this.edits([...word]));
    edited.delete(word);
    if (!isPrefix) {
      const places = [...edited].map((text) => this.find(text)).filter((place) => place !== null);
      return places.sort((a, b) => a - b).map((place) => ({ first: place, last: place + 1 }));
    }
    const spans: Span[] = [];
    let covered = 0;
    for (const text of [...edited].sort(compareTexts)) {
      const span = this.withPrefix(text);
      // Sorted, so that a longer beginning comes after the shorter one that covers it.
      if (span.first < span.last && span.first >= covered) {
        spans.push(span);
        covered = span.last;
      }
    }
    return spans;
  }

  /** Yields the texts one edit from a word up to where no word continues as they begin. */
  private *edits(word: readonly string[]): Generator<string> {
    let span: Span = { first: 0, last: this.words.length };
    for (let i = 0; i <= word.length; i++) {
      const head = word.slice(0, i).join("");
      const tail = word.slice(i);
      span = this.narrow(span, head);
      if (span.first === span.last) {
        return;
      }
      const behind = tail.slice(1).join("");
      if (tail.length > 0) {
        yield head + behind;
      }
      if (tail.length > 1) {
        yield head + tail[1]! + tail[0]! + tail.slice(2).join("");
      }
      for (const character of this.charactersAfter(head)) {
        yield head + character + tail.join("");
        if (tail.length > 0) {
          yield head + character + behind;
        }
      }
    }
  }

  /** Returns the characters that follow a prefix in some word. */
  private charactersAfter(prefix: string): readonly string[] {
    return this.nextCharacters.getOrMake(prefix, () => {
      const characters: string[] = [];
      let { first: place, last } = this.withPrefix(prefix);
      while (place < last) {
        const code = this.words[place]!.codePointAt(prefix.length);
        if (code === undefined) {
          place += 1; // the prefix itself is a word
          continue;
        }
        const character = String.fromCodePoint(code);
        characters.push(character);
        place = this.narrow({ first: place, last }, prefix + character).last;
      }
      return characters;
    });
  }

  /** Returns the words of a span that begin with a prefix. */
  private narrow(span: Span, prefix: string): Span {
    const first = this.firstFrom(prefix, span.first, span.last);
    return { first, last: this.firstFrom(prefix + BEYOND, first, span.last) };
  }

  /** Returns the place of the first word of a span that is not before a text. */
  private firstFrom(text: string, first: number, last: number): number {
    let low = first;
    let high = last;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (compareTexts(this.words[middle]!, text) < 0) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
}
