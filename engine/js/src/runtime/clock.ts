/** Clocks and ids, passed in wherever they are needed so that tests can replace them. */

import { hex } from "./text.js";

/** Returns that many random bytes; WebCrypto's outside of tests. */
export type Entropy = (bytes: number) => Uint8Array;

/** 2025-01-01 in ms since 1970. No event is older, so an earlier wall clock has not been set. */
export const OLDEST_MS = 1_735_689_600_000;

/** Wall time may step and may be wrong; monotonic time never goes back. */
export interface Clock {
  /** Returns milliseconds since 1970, a whole number, never less than 0. */
  wallMs(): number;

  /** Returns milliseconds since an arbitrary moment, a whole number. */
  monoMs(): number;
}

/** The machine's own clocks. */
export const SYSTEM_CLOCK: Clock = {
  wallMs: () => Math.max(0, Math.floor(Date.now())),
  monoMs: () => Math.floor(performance.now()),
};

/** Returns random bytes of the system; throws where the platform has no source of them. */
export function systemEntropy(bytes: number): Uint8Array {
  if (globalThis.crypto?.getRandomValues === undefined) {
    throw new Error(
      "entropy: expected `crypto.getRandomValues` of the platform, found none, as in React" +
        ' Native: import "react-native-get-random-values" first, or pass `entropy`',
    );
  }
  return crypto.getRandomValues(new Uint8Array(bytes));
}

/**
 * Returns a new UUID of version 7 (RFC 9562, section 5.7) as 32 hex digits.
 *
 * It holds 48 bits of wall time, then 74 random bits.
 */
export function uuid7(nowMs: number, entropy: Entropy): string {
  // The 80 bits of which Python takes the first 12 and the last 62.
  const random = entropy(10);
  const first = hex(random.subarray(0, 2)).slice(0, 3);
  const last = random.slice(2);
  last[0] = (last[0]! & 0x3f) | 0x80;
  return nowMs.toString(16).padStart(12, "0") + "7" + first + hex(last);
}

/** Returns the wall time, in ms since 1970, at which `uuid7` made an id. */
export function timeOf(id: string): number {
  return parseInt(id.slice(0, 12), 16);
}
