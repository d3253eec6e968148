/** The body of a batch: lines compressed by gzip, or a zstd frame that compresses nothing. */

/** The body of a batch, and how it is encoded. */
export interface BatchBody {
  readonly body: Uint8Array;
  readonly encoding: "gzip" | "zstd";
}

const ZSTD_MAGIC = [0x28, 0xb5, 0x2f, 0xfd];

/** One segment whose size is given in four bytes; no checksum and no dictionary. */
const FRAME_HEADER = 0b1010_0000;

/** The largest block of the format. */
const BLOCK_BYTES = 128 * 1024;

/** Bytes around the blocks of a frame, at most: the head, and that of one block. */
export const FRAME_BYTES = ZSTD_MAGIC.length + 1 + 4 + 3;

/** Returns the lines of events as one text. */
export function joined(lines: readonly string[]): Uint8Array {
  return new TextEncoder().encode(lines.join("\n"));
}

/** Returns the body of a batch, compressed where this browser or runtime can do it. */
export async function compressed(lines: readonly string[]): Promise<BatchBody> {
  const content = joined(lines);
  if (typeof CompressionStream === "undefined") {
    return { body: zstdFrame(content), encoding: "zstd" };
  }
  const stream = new Blob([content as BlobPart]).stream();
  const packed = stream.pipeThrough(new CompressionStream("gzip"));
  return { body: new Uint8Array(await new Response(packed).arrayBuffer()), encoding: "gzip" };
}

/** Returns a frame of zstd with the content as it is (RFC 8878, raw blocks), made at once. */
export function zstdFrame(content: Uint8Array): Uint8Array {
  const blocks = Math.max(1, Math.ceil(content.length / BLOCK_BYTES));
  const head = [...ZSTD_MAGIC, FRAME_HEADER, ...littleEndian(content.length, 4)];
  const frame = new Uint8Array(head.length + 3 * blocks + content.length);
  frame.set(head);
  let at = head.length;
  for (let block = 0; block < blocks; block++) {
    const part = content.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
    const isLast = block + 1 === blocks;
    frame.set(littleEndian(part.length * 8 + (isLast ? 1 : 0), 3), at); // type 0: raw
    frame.set(part, at + 3);
    at += 3 + part.length;
  }
  return frame;
}

function littleEndian(number: number, bytes: number): number[] {
  return Array.from({ length: bytes }, (_, i) => (number >>> (8 * i)) & 0xff);
}
