/** Items like an item, by the cosine of their vectors. */

import type { Int8Index, KernelSet, SearchResult } from "../kernels/kernelSet.js";
import type { Masks } from "../ranking/eligibility.js";
import type { QuantizedRows } from "../ranking/quantization.js";
import { merged, shifted } from "../ranking/rows.js";
import type { Scorer } from "../ranking/scorer.js";

/** An index that scores a unit query by its cosine with each row; a row of zeros has cosine 0. */
export interface CosineIndex {
  readonly index: Int8Index;
  readonly rows: Int8Array;

  /** 1 over the norm of each int8 row. */
  readonly scale: Float32Array;
}

/** Returns an index of the same int8 rows [n, d], which the kernels copy. */
function cosineIndex(kernels: KernelSet, vectors: QuantizedRows, d: number): CosineIndex {
  const { rows } = vectors;
  const n = vectors.scale.length;
  const scale = new Float32Array(n);
  for (let row = 0; row < n; row++) {
    let squares = 0;
    for (let i = row * d; i < (row + 1) * d; i++) {
      squares += rows[i]! * rows[i]!;
    }
    scale[row] = squares > 0 ? 1.0 / Math.fround(Math.sqrt(squares)) : 1.0;
  }
  const index = kernels.makeIndex({ rows, scale, bias: new Float32Array(n), d });
  return { index, rows, scale };
}

/** Finds the nearest items of a catalog, that of the bundle and what the device added. */
export class SimilarItems {
  private readonly added: CosineIndex | null;

  /** `bundled` are the bundle's items, which another catalog of the same bundle has made. */
  constructor(
    readonly scorer: Scorer,
    readonly bundled: CosineIndex = bundledIndex(scorer),
  ) {
    const { vectors } = scorer.overlay;
    const d = scorer.bundle.manifest.sizes.dim;
    this.added = vectors === null ? null : cosineIndex(scorer.kernels, vectors, d);
  }

  /**
   * Returns the k rows of the largest cosines with a row, which is left out.
   *
   * `masks` hide rows of the bundle and of the added items.
   */
  nearest(row: number, k: number, masks: Masks): SearchResult {
    const n = this.bundled.scale.length;
    const query = row < n ? unitVector(this.bundled, row) : unitVector(this.added!, row - n);
    const excluded = Int32Array.of(row);
    const best = this.bundled.index.top(query, k, excluded, masks[0] ?? undefined);
    if (this.added === null) {
      return best;
    }
    const others = shifted(excluded, -n);
    const added = this.added.index.top(query, k, others, masks[1] ?? undefined);
    return merged(best, added, n, k);
  }

  /** Frees the memory of the items that the device added. */
  release(): void {
    this.added?.index.release();
  }
}

function bundledIndex(scorer: Scorer): CosineIndex {
  const { items, manifest } = scorer.bundle;
  return cosineIndex(scorer.kernels, items, manifest.sizes.dim);
}

function unitVector(cosines: CosineIndex, row: number): Float32Array {
  const d = cosines.rows.length / cosines.scale.length;
  const codes = cosines.rows.subarray(row * d, (row + 1) * d);
  return Float32Array.from(codes, (code) => code * cosines.scale[row]!);
}
