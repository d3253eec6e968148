/**
 * Randomized response on the click bit (Warner 1965): any single uploaded reward is deniable.
 *
 * With privacy ε a bit is uploaded unchanged with probability e^ε / (1 + e^ε) and flipped with
 * p = 1 / (1 + e^ε). The uploaded ±1 divided by 1 - 2p is an unbiased estimate of the true ±1.
 * Whether a slot is flipped follows from the device's secret: rewarding the same slot again reveals
 * nothing more.
 */

import { hmacSha256 } from "../runtime/hmac.js";
import { unhex, utf8 } from "../runtime/text.js";

/** Returns p, the probability with which a click bit is flipped: in (0, 1/2) for ε > 0. */
export function flipProbability(epsilon: number): number {
  return 1 / (1 + Math.exp(epsilon));
}

/** Returns 1 or -1: whether `value` is above 0, flipped with the probability of ε. */
export function flip(
  value: number,
  secret: string,
  decision: string,
  slot: number,
  epsilon: number,
): number {
  const digest = hmacSha256(unhex(secret), utf8(`noise\0${decision}\0${slot}`));
  const number = new DataView(digest.buffer, digest.byteOffset).getBigUint64(0);
  // Python compares whole numbers with floats exactly, and so does JavaScript with BigInt.
  const isFlipped = number < flipProbability(epsilon) * 2 ** 64;
  return value > 0 !== isFlipped ? 1 : -1;
}
