/**
 * The uniforms of a decision, in plain JavaScript: they follow from its id alone.
 *
 * The generator is Philox4x32-10 by Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as
 * easy as 1, 2, 3" (SC 2011).
 */

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9;
const W1 = 0xbb67ae85;

/** Returns the upper 32 bits of the product of two 32-bit words, by halves of sixteen bits. */
function upperProduct(a: number, b: number): number {
  const low = a & 0xffff;
  const high = a >>> 16;
  const otherLow = b & 0xffff;
  const otherHigh = b >>> 16;
  const middle = high * otherLow + ((low * otherLow) >>> 16); // below 2^32, so exact
  const cross = low * otherHigh + (middle & 0xffff);
  return (high * otherHigh + (middle >>> 16) + (cross >>> 16)) >>> 0;
}

/** Returns the upper 27 and 26 bits of two words as a multiple of 2^-53 in [0, 1). */
function double(high: number, low: number): number {
  return ((high >>> 5) * 67108864 + (low >>> 6)) / 9007199254740992;
}

/** Returns the four 32-bit words of a decision id; throws `RangeError` for another string. */
export function idWords(decision: string): [number, number, number, number] {
  if (!/^[0-9a-f]{32}$/i.test(decision)) {
    throw new RangeError(`decision: expected 32 hex digits, found ${JSON.stringify(decision)}`);
  }
  const word = (start: number) => Number.parseInt(decision.slice(start, start + 8), 16);
  return [word(0), word(8), word(16), word(24)];
}

/** Returns two doubles in [0, 1) for each block, for a decision id of 32 hex digits. */
export function plainUniforms(decision: string, blocks: number): Float64Array {
  const [w0, w1, w2, w3] = idWords(decision);
  const out = new Float64Array(2 * blocks);
  for (let block = 0; block < blocks; block++) {
    let [c0, c1, c2, c3] = [block, 0, w0, w1];
    let [k0, k1] = [w2, w3];
    for (let round = 0; round < 10; round++) {
      const high0 = upperProduct(M0, c0);
      const high1 = upperProduct(M1, c2);
      const low0 = Math.imul(M0, c0);
      const low1 = Math.imul(M1, c2);
      c0 = (high1 ^ c1 ^ k0) >>> 0;
      c1 = low1 >>> 0;
      c2 = (high0 ^ c3 ^ k1) >>> 0;
      c3 = low0 >>> 0;
      k0 = (k0 + W0) >>> 0;
      k1 = (k1 + W1) >>> 0;
    }
    out[2 * block] = double(c0, c1);
    out[2 * block + 1] = double(c2, c3);
  }
  return out;
}
