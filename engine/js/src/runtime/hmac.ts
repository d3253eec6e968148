/** HMAC-SHA256 (RFC 2104) of short texts, at once: WebCrypto's takes a turn of the event loop. */

import { sha256 } from "./sha256.js";

const BLOCK = 64; // bytes

/** Returns the 32 bytes of the code of a content under a key of at most 64 bytes. */
export function hmacSha256(key: Uint8Array, content: Uint8Array): Uint8Array {
  const inner = new Uint8Array(BLOCK + content.length).fill(0x36, 0, BLOCK);
  const outer = new Uint8Array(BLOCK + 32).fill(0x5c, 0, BLOCK);
  key.forEach((byte, i) => {
    inner[i]! ^= byte;
    outer[i]! ^= byte;
  });
  inner.set(content, BLOCK);
  outer.set(sha256(inner), BLOCK);
  return sha256(outer);
}
