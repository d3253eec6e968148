/**
 * BLAKE2b (RFC 7693) with an optional key, as Python's `hashlib.blake2b`.
 *
 * A 64-bit word is two 32-bit words here, the lower one first: JavaScript's numbers are exact only
 * up to 53 bits, and BigInt is many times slower.
 */

const BLOCK = 128;

// The first 64 bits of the fractional parts of the square roots of the first 8 primes.
const IV = Uint32Array.of(
  0xf3bcc908, 0x6a09e667, 0x84caa73b, 0xbb67ae85, 0xfe94f82b, 0x3c6ef372, 0x5f1d36f1, 0xa54ff53a,
  0xade682d1, 0x510e527f, 0x2b3e6c1f, 0x9b05688c, 0xfb41bd6b, 0x1f83d9ab, 0x137e2179, 0x5be0cd19,
);

// In which order each round takes the 16 words of a block, as hex digits.
const SIGMA = [
  "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8",
  "905724afe1bc683d", "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a",
  "6fe9b308c2d714a5", "a2847615fb9e3cd0", "0123456789abcdef", "ea489fd61c02b753",
].map((round) => Uint8Array.from(round, (digit) => parseInt(digit, 16)));

// The columns of the 4 x 4 words of the state, then its diagonals.
const QUARTERS = [
  [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15],
  [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14],
] as const;

const NO_KEY = new Uint8Array(0);

// Used again by each call: nothing here waits for anything.
const v = new Uint32Array(32);
const m = new Uint32Array(32);

/** Returns the digest of `size` bytes, 1 to 64, of a content, under a key of at most 64 bytes. */
export function blake2b(content: Uint8Array, size: number, key: Uint8Array = NO_KEY): Uint8Array {
  const h = IV.slice();
  h[0]! ^= 0x01010000 ^ (key.length << 8) ^ size;

  const keyBytes = key.length === 0 ? 0 : BLOCK;
  const total = keyBytes + content.length;
  const padded = new Uint8Array(Math.max(1, Math.ceil(total / BLOCK)) * BLOCK);
  padded.set(key);
  padded.set(content, keyBytes);

  const view = new DataView(padded.buffer);
  for (let start = 0; start < padded.length; start += BLOCK) {
    for (let i = 0; i < 32; i++) {
      m[i] = view.getUint32(start + 4 * i, true);
    }
    const isLast = start + BLOCK === padded.length;
    compress(h, isLast ? total : start + BLOCK, isLast);
  }

  const digest = new DataView(new ArrayBuffer(64));
  h.forEach((word, i) => digest.setUint32(4 * i, word, true));
  return new Uint8Array(digest.buffer, 0, size).slice();
}

/** Mix the block in `m` into the state; `length` is the number of bytes up to its end. */
function compress(h: Uint32Array, length: number, isLast: boolean): void {
  v.set(h);
  v.set(IV, 16);
  v[24]! ^= length;
  v[25]! ^= Math.floor(length / 2 ** 32);
  if (isLast) {
    v[28] = ~v[28]!;
    v[29] = ~v[29]!;
  }
  for (const order of SIGMA) {
    for (let i = 0; i < 8; i++) {
      const [a, b, c, d] = QUARTERS[i]!;
      add(a, b, order[2 * i]!);
      rotateXor(d, a, 32);
      add(c, d);
      rotateXor(b, c, 24);
      add(a, b, order[2 * i + 1]!);
      rotateXor(d, a, 16);
      add(c, d);
      rotateXor(b, c, 63);
    }
  }
  for (let i = 0; i < 16; i++) {
    h[i]! ^= v[i]! ^ v[i + 16]!;
  }
}

/** Add the word at `b`, and a word of the message, to the word at `a`. */
function add(a: number, b: number, word = -1): void {
  let low = v[2 * a]! + v[2 * b]!;
  let high = v[2 * a + 1]! + v[2 * b + 1]!;
  if (word >= 0) {
    low += m[2 * word]!;
    high += m[2 * word + 1]!;
  }
  v[2 * a] = low;
  v[2 * a + 1] = high + Math.floor(low / 2 ** 32);
}

/** Replace the word at `a` by its exclusive or with the word at `b`, rotated to the right. */
function rotateXor(a: number, b: number, bits: number): void {
  let low = v[2 * a]! ^ v[2 * b]!;
  let high = v[2 * a + 1]! ^ v[2 * b + 1]!;
  if (bits >= 32) {
    [low, high] = [high, low];
  }
  const shift = bits % 32;
  v[2 * a] = shift === 0 ? low : (low >>> shift) | (high << (32 - shift));
  v[2 * a + 1] = shift === 0 ? high : (high >>> shift) | (low << (32 - shift));
}
