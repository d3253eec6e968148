/** SHA-256 (FIPS 180-4): of short texts at once, of files by the browser where it can. */

import { hex } from "./text.js";

const BLOCK = 64; // bytes

/** The first 32 bits of the fractional parts of the `root`-th roots of the first primes. */
function fractions(count: number, root: number): Uint32Array {
  const words = new Uint32Array(count);
  let candidate = 2;
  for (let i = 0; i < count; candidate++) {
    if (isPrime(candidate)) {
      words[i] = Math.floor((candidate ** (1 / root) % 1) * 2 ** 32);
      i += 1;
    }
  }
  return words;
}

function isPrime(n: number): boolean {
  for (let divisor = 2; divisor * divisor <= n; divisor++) {
    if (n % divisor === 0) {
      return false;
    }
  }
  return true;
}

const INITIAL = fractions(8, 2);
const ROUNDS = fractions(64, 3);

/** Returns the 32 bytes of a hash, computed here. */
export function sha256(data: Uint8Array): Uint8Array {
  const state = INITIAL.slice();
  const schedule = new Uint32Array(BLOCK);
  const whole = data.length - (data.length % BLOCK);
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  for (let start = 0; start < whole; start += BLOCK) {
    compress(state, schedule, view, start);
  }

  const rest = data.subarray(whole);
  const last = new Uint8Array(rest.length + 9 > BLOCK ? 2 * BLOCK : BLOCK);
  last.set(rest);
  last[rest.length] = 0x80;
  const tail = new DataView(last.buffer);
  tail.setUint32(last.length - 8, Math.floor(data.length / 2 ** 29));
  tail.setUint32(last.length - 4, data.length << 3);
  for (let start = 0; start < last.length; start += BLOCK) {
    compress(state, schedule, tail, start);
  }

  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((word, i) => digest.setUint32(4 * i, word));
  return new Uint8Array(digest.buffer);
}

function compress(state: Uint32Array, w: Uint32Array, block: DataView, start: number): void {
  for (let i = 0; i < 16; i++) {
    w[i] = block.getUint32(start + 4 * i);
  }
  for (let i = 16; i < 64; i++) {
    const near = w[i - 2]!;
    const far = w[i - 15]!;
    const s0 = turned(far, 7) ^ turned(far, 18) ^ (far >>> 3);
    const s1 = turned(near, 17) ^ turned(near, 19) ^ (near >>> 10);
    w[i] = w[i - 16]! + s0 + w[i - 7]! + s1;
  }

  let [a, b, c, d, e, f, g, h] = state as unknown as [
    number, number, number, number, number, number, number, number,
  ];
  for (let i = 0; i < 64; i++) {
    const s1 = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25);
    const t1 = (h + s1 + ((e & f) ^ (~e & g)) + ROUNDS[i]! + w[i]!) | 0;
    const s0 = turned(a, 2) ^ turned(a, 13) ^ turned(a, 22);
    const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g;
    g = f;
    f = e;
    e = (d + t1) | 0;
    d = c;
    c = b;
    b = a;
    a = (t1 + t2) | 0;
  }
  [a, b, c, d, e, f, g, h].forEach((word, i) => {
    state[i] = state[i]! + word;
  });
}

/** Returns a word turned to the right. */
function turned(word: number, by: number): number {
  return (word >>> by) | (word << (32 - by));
}

/**
 * Returns the hash of a file as lower-case hex.
 *
 * By WebCrypto where there is one: pages that were not loaded by HTTPS, and some app shells, have
 * none.
 */
export async function fileHash(data: Uint8Array): Promise<string> {
  const subtle = globalThis.crypto?.subtle;
  const digest = subtle
    ? new Uint8Array(await subtle.digest("SHA-256", data as Uint8Array<ArrayBuffer>))
    : sha256(data);
  return hex(digest);
}
