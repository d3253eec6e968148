/** The memory of a WebAssembly instance, shared out in blocks that start on cache lines. */

const CACHE_LINE = 64;
const PAGE = 65536;

interface Span {
  start: number;
  size: number;
}

/** Shares out what lies behind the module's own data, and grows the memory when it is used up. */
export class WasmMemory {
  private free: Span[] = []; // by address, never side by side
  private readonly sizes = new Map<number, number>();
  private end: number; // of what has ever been shared out
  private buffer!: ArrayBuffer;
  private views!: {
    readonly bytes: Uint8Array;
    readonly ints: Int32Array;
    readonly floats: Float32Array;
    readonly doubles: Float64Array;
  };

  /** Shares out the memory from an address on. */
  constructor(
    private readonly memory: WebAssembly.Memory,
    start: number,
  ) {
    this.end = wholeLines(start);
    this.renewViews();
  }

  /** The memory as bytes; invalid after the next `allocate`, as are the views below. */
  get bytes(): Uint8Array {
    return this.current().bytes;
  }

  /** The memory as int32, by address / 4. */
  get ints(): Int32Array {
    return this.current().ints;
  }

  /** The memory as float32, by address / 4. */
  get floats(): Float32Array {
    return this.current().floats;
  }

  /** The memory as float64, by address / 8. */
  get doubles(): Float64Array {
    return this.current().doubles;
  }

  /** Returns the address of a block of so many bytes; throws `RangeError` if there is no room. */
  allocate(bytes: number): number {
    const size = wholeLines(Math.max(bytes, 1));
    const fits = this.free.findIndex((span) => span.size >= size);
    let start = this.end;
    if (fits >= 0) {
      const span = this.free[fits]!;
      start = span.start;
      span.start += size;
      span.size -= size;
      if (span.size === 0) this.free.splice(fits, 1);
    } else {
      this.growTo(start + size);
      this.end = start + size;
    }
    this.sizes.set(start, size);
    return start;
  }

  /** Takes a block back, which must not be used afterwards. */
  release(start: number): void {
    const size = this.sizes.get(start);
    if (size === undefined) return;
    this.sizes.delete(start);
    this.free.push({ start, size });
    this.free.sort((some, other) => some.start - other.start);
    this.free = this.free.reduce<Span[]>((joined, span) => {
      const last = joined.at(-1);
      if (last !== undefined && last.start + last.size === span.start) last.size += span.size;
      else joined.push(span);
      return joined;
    }, []);
  }

  /** Returns the address of a copy of an array, in a block of its own. */
  copy(array: Int8Array | Float32Array): number {
    const start = this.allocate(array.byteLength);
    this.bytes.set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength), start);
    return start;
  }

  /** Writes integers that are not negative as int64. */
  writeLongs(start: number, values: readonly number[]): void {
    const ints = this.ints;
    values.forEach((value, i) => {
      ints[start / 4 + 2 * i] = value;
      ints[start / 4 + 2 * i + 1] = 0;
    });
  }

  private current(): WasmMemory["views"] {
    // Growing, which only this object does, detaches the buffer.
    if (this.buffer !== this.memory.buffer) this.renewViews();
    return this.views;
  }

  private renewViews(): void {
    this.buffer = this.memory.buffer;
    this.views = {
      bytes: new Uint8Array(this.buffer),
      ints: new Int32Array(this.buffer),
      floats: new Float32Array(this.buffer),
      doubles: new Float64Array(this.buffer),
    };
  }

  private growTo(end: number): void {
    const missing = end - this.memory.buffer.byteLength;
    if (missing <= 0) return;
    try {
      this.memory.grow(Math.ceil(missing / PAGE));
    } catch (error) {
      throw new RangeError(`the kernels need ${missing} more bytes, which the browser refused`, {
        cause: error,
      });
    }
  }
}

/** Returns a number of bytes rounded up to whole cache lines. */
export function wholeLines(bytes: number): number {
  return Math.ceil(bytes / CACHE_LINE) * CACHE_LINE;
}
