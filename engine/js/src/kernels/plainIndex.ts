/** Exact top-k over int8 rows, in plain JavaScript. */

import {
  checkMask,
  checkQuery,
  checkTable,
  quantizeQuery,
  rowScore,
  rowScores,
} from "./int8Table.js";
import type { Int8Index, Int8Table, SearchResult } from "./kernelSet.js";
import type { RowMask } from "./rowMask.js";

/** An exact index that scores each row in plain JavaScript. */
export class PlainIndex implements Int8Index {
  readonly n: number;
  readonly d: number;
  private readonly table: Int8Table;

  /** Makes an index of a table; throws `RangeError` where its parts do not fit together. */
  constructor(table: Int8Table) {
    this.n = checkTable(table);
    this.d = table.d;
    this.table = { ...table, bias: table.bias.slice() };
  }

  top(query: Float32Array, k: number, excluded?: Int32Array, mask?: RowMask): SearchResult {
    checkQuery(this.d, query);
    checkMask(this.n, mask);
    const hidden = mask === undefined ? new Uint8Array(this.n) : mask.hidden.slice();
    for (const row of excluded ?? []) {
      if (row >= 0 && row < this.n) hidden[row] = 1;
    }

    const codes = quantizeQuery(query);
    const heap = new Heap(Math.min(k, this.n));
    let eligible = 0;
    for (let row = 0; row < this.n; row++) {
      if (hidden[row] !== 0) continue;
      eligible += 1;
      heap.offer(rowScore(this.table, codes, row), row);
    }
    return { ...heap.sorted(), eligible };
  }

  scores(query: Float32Array, rows: Int32Array): Float64Array {
    return rowScores(this.table, query, rows);
  }

  raiseBiases(rows: Int32Array, by: Float32Array): () => void {
    const { bias } = this.table;
    const before = Float32Array.from(rows, (row) => bias[row]!);
    rows.forEach((row, i) => {
      bias[row] = Math.fround(bias[row]! + by[i]!);
    });
    return () => {
      rows.forEach((row, i) => {
        bias[row] = before[i]!;
      });
    };
  }

  release(): void {
    // The arrays are the collector's.
  }
}

/** A heap of the k best rows: the root is the worst; of equal scores the later row is worse. */
class Heap {
  private readonly scores: Float64Array;
  private readonly rows: Int32Array;
  private size = 0;

  constructor(private readonly k: number) {
    this.scores = new Float64Array(k);
    this.rows = new Int32Array(k);
  }

  /** Keeps a row, later than all before it, if it is among the k best so far. */
  offer(score: number, row: number): void {
    if (this.size < this.k) {
      this.push(score, row);
    } else if (this.k > 0 && score > this.scores[0]!) {
      this.replaceRoot(this.size, score, row);
    }
  }

  /** Returns the rows and scores, best first; the heap is used up. */
  sorted(): { rows: Int32Array; scores: Float64Array } {
    const { scores, rows, size } = this;
    for (let last = size - 1; last > 0; last--) {
      const score = scores[last]!;
      const row = rows[last]!;
      scores[last] = scores[0]!;
      rows[last] = rows[0]!;
      this.replaceRoot(last, score, row);
    }
    return { rows: rows.slice(0, size), scores: scores.slice(0, size) };
  }

  private isWorse(score: number, row: number, i: number): boolean {
    const other = this.scores[i]!;
    return score < other || (score === other && row > this.rows[i]!);
  }

  private push(score: number, row: number): void {
    let child = this.size;
    this.size += 1;
    while (child > 0) {
      const parent = (child - 1) >> 1;
      if (!this.isWorse(score, row, parent)) break;
      this.move(parent, child);
      child = parent;
    }
    this.scores[child] = score;
    this.rows[child] = row;
  }

  private replaceRoot(size: number, score: number, row: number): void {
    let parent = 0;
    for (;;) {
      let child = 2 * parent + 1;
      if (child >= size) break;
      const next = child + 1;
      if (next < size && this.isWorse(this.scores[next]!, this.rows[next]!, child)) child = next;
      if (this.isWorse(score, row, child)) break;
      this.move(child, parent);
      parent = child;
    }
    this.scores[parent] = score;
    this.rows[parent] = row;
  }

  private move(from: number, to: number): void {
    this.scores[to] = this.scores[from]!;
    this.rows[to] = this.rows[from]!;
  }
}
