/**
 * Names that are like a mistyped one: `difflib.get_close_matches` of Python, so that errors name
 * the same ones.
 *
 * The likeness is that of Ratcliff and Obershelp (1988): twice the characters in common, in the
 * longest blocks, over all characters.
 */

import { compareTexts } from "../unicode.js";

const CUTOFF = 0.6;
const MANY = 200; // characters of a text from which on frequent ones begin no block
const FREQUENT = 0.01;

/** Returns the names most like a word, best first, at most so many. */
export function closeMatches(word: string, names: Iterable<string>, atMost: number): string[] {
  const characters = [...word];
  const places = placesOf(characters);
  const found: { name: string; likeness: number }[] = [];
  for (const name of names) {
    const likeness = likenessOf([...name], characters, places);
    if (likeness >= CUTOFF) {
      found.push({ name, likeness });
    }
  }
  found.sort((a, b) => b.likeness - a.likeness || compareTexts(b.name, a.name));
  return found.slice(0, atMost).map((each) => each.name);
}

type Places = ReadonlyMap<string, readonly number[]>;

/** Returns where each character stands; frequent ones of a long text are left out. */
function placesOf(characters: readonly string[]): Places {
  const places = new Map<string, number[]>();
  characters.forEach((character, at) => {
    const known = places.get(character);
    if (known === undefined) {
      places.set(character, [at]);
    } else {
      known.push(at);
    }
  });
  if (characters.length >= MANY) {
    const limit = Math.floor(characters.length * FREQUENT) + 1;
    for (const [character, at] of places) {
      if (at.length > limit) {
        places.delete(character);
      }
    }
  }
  return places;
}

function likenessOf(a: readonly string[], b: readonly string[], places: Places): number {
  const total = a.length + b.length;
  if (total === 0) {
    return 1.0;
  }
  let common = 0;
  const waiting: [number, number, number, number][] = [[0, a.length, 0, b.length]];
  for (let area = waiting.pop(); area !== undefined; area = waiting.pop()) {
    const [fromA, toA, fromB, toB] = area;
    const block = longestBlock(a, b, places, area);
    if (block.size > 0) {
      common += block.size;
      waiting.push([fromA, block.a, fromB, block.b]);
      waiting.push([block.a + block.size, toA, block.b + block.size, toB]);
    }
  }
  return (2.0 * common) / total;
}

/** Returns the longest block that both have within an area, the first one of several. */
function longestBlock(
  a: readonly string[],
  b: readonly string[],
  places: Places,
  [fromA, toA, fromB, toB]: readonly [number, number, number, number],
): { a: number; b: number; size: number } {
  let best = { a: fromA, b: fromB, size: 0 };
  let lengths = new Map<number, number>(); // of the blocks that end at places of b
  for (let i = fromA; i < toA; i++) {
    const longer = new Map<number, number>();
    for (const j of places.get(a[i]!) ?? []) {
      if (j >= fromB && j < toB) {
        const size = (lengths.get(j - 1) ?? 0) + 1;
        longer.set(j, size);
        if (size > best.size) {
          best = { a: i - size + 1, b: j - size + 1, size };
        }
      }
    }
    lengths = longer;
  }
  // Frequent characters begin no block, but they make it longer.
  let { a: startA, b: startB, size } = best;
  while (startA > fromA && startB > fromB && a[startA - 1] === b[startB - 1]) {
    startA -= 1;
    startB -= 1;
    size += 1;
  }
  while (startA + size < toA && startB + size < toB && a[startA + size] === b[startB + size]) {
    size += 1;
  }
  return { a: startA, b: startB, size };
}
