/** Exact top-k over int8 rows, by `sanderling_scan` of the WebAssembly module. */

import { checkMask, checkQuery, checkTable, rowScores } from "./int8Table.js";
import type { Int8Index, Int8Table, SearchResult } from "./kernelSet.js";
import * as layout from "./layout.js";
import type { RowMask } from "./rowMask.js";
import type { WasmModule } from "./wasmModule.js";

const rounding = new Float32Array(1);
const roundingBits = new Uint32Array(rounding.buffer);

/** Returns the bits of the least bfloat16 that is not below a float32. */
function bfloatUp(value: number): number {
  rounding[0] = value;
  const bits = roundingBits[0]!;
  // Cutting bits off makes a negative number larger already.
  const carry = bits < 0x80000000 ? 0xffff : 0;
  return (bits + carry) >>> 16;
}

const LISTED = 1; // its place among the sizes
const FIRST_PART = 3; // that of the first array that `scratch` points to

/** Returns the bytes of the arrays of a search of no rows, excluded or found. */
function scratchSizes(d: number, blocks: number): number[] {
  const parts = new Array<number>(layout.SCRATCH_SIZE).fill(0);
  parts[layout.SCRATCH_DEFERRED_ROWS] = 8 * layout.MAX_DEFERRED;
  parts[layout.SCRATCH_DEFERRED_BOUNDS] = 4 * layout.MAX_DEFERRED;
  parts[layout.SCRATCH_CODES] = 4 * layout.ceilDiv(d, layout.LANES) * layout.LANES;
  // int8 codes and the int16 words that are made of them
  parts[layout.SCRATCH_COARSE] = 3 * layout.ceilDiv(d, layout.GROUP_DIMS) * layout.GROUP_DIMS;
  parts[layout.SCRATCH_EXCLUDED] = 8 * blocks;
  parts[layout.SCRATCH_BOUNDS] = 4 * layout.CHUNK_ROWS;
  parts[layout.SCRATCH_STATE] = 8 * layout.STATE_SIZE;
  parts[layout.SCRATCH_HITS] = 8 * layout.CHUNK_ROWS;
  parts[layout.SCRATCH_MASK] = 8 * blocks;
  return [4 * d, 0, 8 * layout.SCRATCH_SIZE, ...parts];
}

/** An exact index in WebAssembly: rows, scales, biases and the blocks that are scanned. */
export class WasmIndex implements Int8Index {
  readonly n: number;
  readonly d: number;
  private readonly blocks: number;
  private readonly planes: number;
  private readonly blockBytes: number;
  private readonly rows: number;
  private readonly scale: number;
  private readonly bias: number;
  private readonly tableArray: number;

  /** The bytes of a query, of listed rows, of `scratch` and of what it points to. */
  private readonly sizes: number[];

  /** Makes an index of n > 0 rows; throws `RangeError` where the table's parts do not fit. */
  constructor(
    private readonly module: WasmModule,
    table: Int8Table,
  ) {
    const { memory } = module;
    this.n = checkTable(table);
    this.d = table.d;
    this.blocks = layout.ceilDiv(this.n, layout.BLOCK_ROWS);
    const bits = layout.bitsFor(this.n, this.d);
    this.blockBytes = layout.planeBytes(this.d, bits) + layout.TAIL_BYTES;
    this.planes = memory.allocate(this.blocks * this.blockBytes);
    this.rows = memory.copy(table.rows);
    this.scale = memory.copy(table.scale);
    this.bias = memory.copy(table.bias);

    const values = new Array<number>(layout.TABLE_SIZE).fill(0);
    values[layout.TABLE_BLOCKS] = this.planes;
    values[layout.TABLE_BLOCK_COUNT] = this.blocks;
    values[layout.TABLE_GROUPS] = layout.ceilDiv(this.d, layout.GROUP_DIMS);
    values[layout.TABLE_ROWS] = this.rows;
    values[layout.TABLE_N] = this.n;
    values[layout.TABLE_D] = this.d;
    values[layout.TABLE_SCALE] = this.scale;
    values[layout.TABLE_BIAS] = this.bias;
    values[layout.TABLE_BITS] = bits;
    this.tableArray = memory.allocate(8 * layout.TABLE_SIZE);
    memory.writeLongs(this.tableArray, values);
    module.pack(this.tableArray);
    this.sizes = scratchSizes(this.d, this.blocks);
  }

  top(query: Float32Array, k: number, excluded?: Int32Array, mask?: RowMask): SearchResult {
    checkQuery(this.d, query);
    checkMask(this.n, mask);
    const { memory } = this.module;
    const wanted = Math.min(k, this.n);
    const listed = excluded ?? new Int32Array(0);
    this.sizes[LISTED] = 8 * listed.length;
    this.sizes[FIRST_PART + layout.SCRATCH_BEST_ROWS] = 8 * wanted;
    this.sizes[FIRST_PART + layout.SCRATCH_BEST_SCORES] = 8 * wanted;
    const addresses = this.module.room(this.sizes);
    const [queryAddress, listedAddress, scratchAddress, ...scratch] = addresses as [
      number,
      number,
      number,
      ...number[],
    ];

    memory.floats.set(query, queryAddress / 4);
    const { ints } = memory;
    listed.forEach((row, i) => {
      ints[listedAddress / 4 + 2 * i] = row;
      ints[listedAddress / 4 + 2 * i + 1] = row >> 31; // the sign
    });
    const state = scratch[layout.SCRATCH_STATE]!;
    ints[state / 4 + 2 * layout.STATE_MASKED] = mask?.count ?? 0;
    ints[state / 4 + 2 * layout.STATE_MASKED + 1] = 0;
    if (mask === undefined) scratch[layout.SCRATCH_MASK] = 0;
    else memory.bytes.set(mask.bits, scratch[layout.SCRATCH_MASK]!);
    memory.writeLongs(scratchAddress, scratch);

    const count = this.module.scan(
      this.tableArray,
      queryAddress,
      listedAddress,
      listed.length,
      wanted,
      scratchAddress,
    );
    const bestRows = scratch[layout.SCRATCH_BEST_ROWS]! / 4;
    const bestScores = scratch[layout.SCRATCH_BEST_SCORES]! / 8;
    const rows = new Int32Array(count);
    for (let i = 0; i < count; i++) rows[i] = ints[bestRows + 2 * i]!;
    return {
      rows,
      scores: memory.doubles.slice(bestScores, bestScores + count),
      eligible: ints[state / 4 + 2 * layout.STATE_ELIGIBLE]!,
    };
  }

  scores(query: Float32Array, rows: Int32Array): Float64Array {
    return rowScores(this.table(), query, rows);
  }

  raiseBiases(rows: Int32Array, by: Float32Array): () => void {
    const { bias } = this.table();
    const before = Float32Array.from(rows, (row) => bias[row]!);
    this.writeBiases(
      rows,
      before.map((value, i) => value + by[i]!),
    );
    return () => this.writeBiases(rows, before);
  }

  release(): void {
    for (const start of [this.planes, this.rows, this.scale, this.bias, this.tableArray]) {
      this.module.memory.release(start);
    }
  }

  /** Returns views of the table's arrays, valid until memory is allocated. */
  private table(): Int8Table {
    const { bytes, floats } = this.module.memory;
    return {
      rows: new Int8Array(bytes.buffer, this.rows, this.n * this.d),
      scale: floats.subarray(this.scale / 4, this.scale / 4 + this.n),
      bias: floats.subarray(this.bias / 4, this.bias / 4 + this.n),
      d: this.d,
    };
  }

  /** Replaces biases of rows, in the table and, rounded up to bfloat16, in the blocks. */
  private writeBiases(rows: Int32Array, biases: Float32Array): void {
    const { bias } = this.table();
    const tails = this.planes + this.blockBytes - layout.TAIL_BYTES + layout.TAIL_BIASES;
    const { bytes } = this.module.memory;
    rows.forEach((row, i) => {
      bias[row] = biases[i]!;
      const lane = row % layout.BLOCK_ROWS;
      const start = tails + ((row - lane) / layout.BLOCK_ROWS) * this.blockBytes + 2 * lane;
      const rounded = bfloatUp(biases[i]!);
      bytes[start] = rounded & 0xff;
      bytes[start + 1] = rounded >>> 8;
    });
  }
}
