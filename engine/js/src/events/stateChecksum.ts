/**
 * The checksum of the events that made a user's state, by which training checks that it rebuilt the
 * same state.
 */

import { blake2b } from "../runtime/blake2b.js";
import { hex, utf8 } from "../runtime/text.js";

/** The checksum of an empty state. */
export const NO_EVENTS = "0".repeat(32);

/**
 * Returns the checksum after one more event: BLAKE2b-128 of the checksum so far, the item id and
 * the kind.
 */
export function nextChecksum(checksum: string, item: string, kind: string): string {
  return hex(blake2b(utf8(`${checksum}\0${item}\0${kind}`), 16));
}
