/** The hash by which an item id is looked up. */

import { blake2b } from "../runtime/blake2b.js";
import { utf8 } from "../runtime/text.js";

/** Returns the BLAKE2b of 8 bytes of an item id as two words, the lower one first. */
export function idHash(item: string): Uint32Array {
  const digest = blake2b(utf8(item), 8);
  const view = new DataView(digest.buffer, digest.byteOffset, 8);
  return Uint32Array.of(view.getUint32(0, true), view.getUint32(4, true));
}

/** Returns the first position of ascending hashes that is not below a hash, both pairs of words. */
export function positionOf(hashes: Uint32Array, hash: Uint32Array): number {
  let low = 0;
  let high = hashes.length / 2;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareHashes(hashes, middle, hash, 0) < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

/** Returns less than 0 where hash i of one list is below hash j of another, 0 for equal ones. */
export function compareHashes(
  some: Uint32Array,
  i: number,
  others: Uint32Array,
  j: number,
): number {
  return some[2 * i + 1]! - others[2 * j + 1]! || some[2 * i]! - others[2 * j]!;
}
