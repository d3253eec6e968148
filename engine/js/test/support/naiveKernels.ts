/** The kernels in the fewest words: what each result is, without thought for speed. */

import type {
  Int8Index,
  Int8Table,
  KernelSet,
  SearchResult,
  UserModel,
  UserModelTensors,
} from "../../src/kernels/kernelSet.js";
import type { RowMask } from "../../src/kernels/rowMask.js";

class NaiveIndex implements Int8Index {
  readonly n: number;
  readonly d: number;
  readonly #table: Int8Table;
  readonly #bias: Float32Array;

  constructor(table: Int8Table) {
    this.n = table.scale.length;
    this.d = table.d;
    this.#table = table;
    this.#bias = table.bias.slice();
    const fits =
      table.scale.every((scale) => scale >= 1e-12 && scale <= 1e12) &&
      table.bias.every((bias) => Math.abs(bias) <= 1e12);
    if (!fits) {
      throw new RangeError("expected scales of 1e-12 to 1e+12, and biases up to that");
    }
  }

  top(query: Float32Array, k: number, excluded?: Int32Array, mask?: RowMask): SearchResult {
    const left = new Set(excluded ?? []);
    const rows = Array.from({ length: this.n }, (_, row) => row).filter(
      (row) => !left.has(row) && (mask?.hidden[row] ?? 0) === 0,
    );
    const scores = this.scores(query, Int32Array.from(rows));
    const places = [...rows.keys()].sort((a, b) => scores[b]! - scores[a]! || a - b).slice(0, k);
    return {
      rows: Int32Array.from(places, (place) => rows[place]!),
      scores: Float64Array.from(places, (place) => scores[place]!),
      eligible: rows.length,
    };
  }

  scores(query: Float32Array, rows: Int32Array): Float64Array {
    const peak = query.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
    const isDirection = peak >= 1e-12 && peak <= 1e12;
    const step = isDirection ? peak / 8388607 : 0;
    const codes = Array.from(query, (value) =>
      isDirection ? value * (8388607 / peak) + 2 ** 52 * 1.5 - 2 ** 52 * 1.5 : 0,
    );
    return Float64Array.from(rows, (row) => {
      let dot = 0;
      for (let j = 0; j < this.d; j++) {
        dot += this.#table.rows[row * this.d + j]! * codes[j]!;
      }
      return dot * this.#table.scale[row]! * step + this.#bias[row]!;
    });
  }

  raiseBiases(rows: Int32Array, by: Float32Array): () => void {
    const before = this.#bias.slice();
    rows.forEach((row, i) => {
      this.#bias[row]! += by[i]!;
    });
    return () => this.#bias.set(before);
  }

  release(): void {}
}

class NaiveUserModel implements UserModel {
  readonly #policy: UserModelTensors;

  constructor(policy: UserModelTensors) {
    this.#policy = policy;
  }

  initialState(): Float32Array {
    return new Float32Array(this.#policy["state.decay"].length);
  }

  step(state: Float32Array, item: Float32Array, kind: number): Float32Array {
    const input = this.input(item, kind);
    const decay = this.#policy["state.decay"];
    return state.map((value, i) => Math.fround(decay[i]! * value) + input[i]!);
  }

  input(item: Float32Array, kind: number): Float32Array {
    const decay = this.#policy["state.decay"];
    const input = times(this.#policy["state.input"], item);
    return Float32Array.from(decay, (each, i) => {
      const gate = this.#policy["state.kind"][kind * decay.length + i]!;
      return Math.sqrt(1 - each * each) * gate * input[i]!;
    });
  }

  userVector(state: Float32Array, context?: Float32Array): Float32Array {
    const p = this.#policy;
    const mean = state.reduce((sum, value) => sum + value, 0) / state.length;
    const square = state.reduce((sum, value) => sum + (value - mean) ** 2, 0) / state.length;
    const norm = state.map(
      (value, i) =>
        ((value - mean) / Math.sqrt(square + 1e-5)) * p["output.gain"][i]! + p["output.shift"][i]!,
    );
    const hidden = times(p["output.w1"], norm)
      .map((value, i) => value + p["output.b1"][i]!)
      .map((value) => value / (1 + Math.exp(-value)));
    const added = context === undefined ? null : times(p["context.project"], context);
    return times(p["output.w2"], hidden).map(
      (value, i) => value + p["output.b2"][i]! + (added?.[i] ?? 0),
    );
  }

  release(): void {}
}

/** Returns the product of a matrix [rows, columns] and a vector [columns]. */
function times(matrix: Float32Array, vector: Float32Array): Float32Array {
  return Float32Array.from({ length: matrix.length / vector.length }, (_, i) =>
    vector.reduce((sum, value, j) => sum + value * matrix[i * vector.length + j]!, 0),
  );
}

/** Returns the words of one block of Philox4x32-10. */
export function philox(counter: readonly bigint[], key: readonly bigint[]): bigint[] {
  const low = 0xffffffffn;
  let [c0, c1, c2, c3] = counter as [bigint, bigint, bigint, bigint];
  let [k0, k1] = key as [bigint, bigint];
  for (let round = 0; round < 10; round++) {
    const p0 = 0xd2511f53n * c0;
    const p1 = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(p1 >> 32n) ^ c1 ^ k0, p1 & low, (p0 >> 32n) ^ c3 ^ k1, p0 & low];
    [k0, k1] = [(k0 + 0x9e3779b9n) & low, (k1 + 0xbb67ae85n) & low];
  }
  return [c0, c1, c2, c3];
}

function uniforms(decision: string, blocks: number): Float64Array {
  const [w0, w1, w2, w3] = decision.match(/.{8}/g)!.map((digits) => BigInt(`0x${digits}`));
  const numbers: number[] = [];
  for (let block = 0; block < blocks; block++) {
    const [a, b, c, d] = philox([BigInt(block), 0n, w0!, w1!], [w2!, w3!]);
    for (const [high, low] of [[a!, b!], [c!, d!]]) {
      numbers.push(Number((high! >> 5n) * 67108864n + (low! >> 6n)) / 2 ** 53);
    }
  }
  return Float64Array.from(numbers);
}

/** The reference implementation of all kernels. */
export const NAIVE_KERNELS: KernelSet = {
  source: "plain",
  makeIndex: (table) => new NaiveIndex(table),
  makeUserModel: (policy) => new NaiveUserModel(policy),
  uniforms,
};
