/** Scores the items of a bundle, and those that this device added, for a user vector. */

import type { Bundle } from "../bundle/bundle.js";
import { BundleError } from "../errors.js";
import type { Int8Index, KernelSet, SearchResult } from "../kernels/kernelSet.js";
import { RowMask } from "../kernels/rowMask.js";
import { LruCache } from "../runtime/lruCache.js";
import { Eligibility, type Masks } from "./eligibility.js";
import { type Newcomers, outside } from "./newcomers.js";
import {
  type AddedVectors,
  type CatalogOverlay,
  EMPTY_OVERLAY,
  type OverlayRecord,
} from "./overlay.js";
import { quantizeRows } from "./quantization.js";
import { best, concatenate, merged, NO_ROWS, shifted, without } from "./rows.js";
import { BundleTextEncoder, type EncoderRuntime } from "./textEncoder.js";
import { UserModel } from "./userModel.js";

const CACHED_ROWS = 65536; // ids whose rows are kept
const CACHED_ITEMS = 4096; // rows whose catalog entries are kept

/** The row of an id that is in neither the bundle nor the overlay. */
export const UNKNOWN = -1;

/** The catalog's entry of an item. */
export interface CatalogItem {
  readonly id: string;
  readonly title: string;
  readonly attributes: Readonly<Record<string, unknown>>;
}

/** What all scorers of one bundle share. */
interface BundleParts {
  readonly kernels: KernelSet;
  readonly index: Int8Index;
  readonly encoder: BundleTextEncoder;
  readonly userModel: UserModel;
}

/** What limits one ranking. */
export interface RankingLimits {
  /** Rows that may not be returned; -1 is ignored. */
  readonly excluded?: Int32Array;

  /** What may be shown; all items unless given. */
  readonly eligible?: Eligibility;
}

/**
 * Scores users against items; rows 0 … n-1 are the bundle's items, row n + i is added item i.
 *
 * A changed catalog makes another scorer: this one is immutable but for caches.
 */
export class Scorer {
  /** What may be shown without rules: all but replaced and removed items. */
  readonly allItems: Eligibility;

  /** Names the space of user states and vectors: those of another space mean nothing here. */
  readonly space: string;

  readonly #parts: BundleParts;
  readonly #addedRows: ReadonlyMap<string, number>;
  readonly #removed: ReadonlySet<string>;
  readonly #rows = new Map<string, number>();
  readonly #items = new LruCache<number, CatalogItem>(CACHED_ITEMS);

  private constructor(
    readonly bundle: Bundle,
    parts: BundleParts,
    readonly overlay: CatalogOverlay,
  ) {
    this.#parts = parts;
    const { items } = bundle.manifest.sizes;
    // States and vectors mean the same only under the same policy and items.
    this.space = ["policy.safetensors", "items.safetensors"]
      .map((name) => bundle.manifest.files.get(name)!.sha256.slice(0, 16))
      .join("");
    this.#addedRows = new Map(overlay.added.map((record, i) => [record.id, items + i]));
    const removed = overlay.records.filter((record) => record.text === undefined);
    this.#removed = new Set(removed.map((record) => record.id));
    this.allItems = this.#eligibleItems();
  }

  /** Returns the scorer of a bundle that nothing was added to. */
  static of(bundle: Bundle, kernels: KernelSet, runtime: EncoderRuntime): Scorer {
    const { rows, scale, bias } = bundle.items;
    let index: Int8Index;
    try {
      index = kernels.makeIndex({ rows, scale, bias, d: bundle.manifest.sizes.dim });
    } catch (error) {
      throw new BundleError(`items.safetensors: ${(error as Error).message}`);
    }
    const model = kernels.makeUserModel(bundle.policy);
    const parts = {
      kernels,
      index,
      encoder: new BundleTextEncoder(bundle, runtime),
      userModel: new UserModel(model, bundle.manifest.kinds),
    };
    return new Scorer(bundle, parts, EMPTY_OVERLAY);
  }

  /** The kernels that search and draw. */
  get kernels(): KernelSet {
    return this.#parts.kernels;
  }

  /** The bundle's items. */
  get index(): Int8Index {
    return this.#parts.index;
  }

  /** The bundle's encoder of texts. */
  get encoder(): BundleTextEncoder {
    return this.#parts.encoder;
  }

  /** The bundle's recurrence from behaviour to user vector. */
  get userModel(): UserModel {
    return this.#parts.userModel;
  }

  /** Returns the row of an item id, or null: it is in neither the bundle nor the overlay. */
  find(item: string): number | null {
    const row = this.#rows.get(item) ?? this.#lookUp(item);
    return row === UNKNOWN ? null : row;
  }

  /** Returns whether the app removed this item from the device. */
  isRemoved(item: string): boolean {
    return this.#removed.has(item);
  }

  /** Returns the rows of ids, `UNKNOWN` for those that have none. */
  rowsOf(items: readonly string[]): Int32Array {
    return Int32Array.from(items, (item) => this.#rows.get(item) ?? this.#lookUp(item));
  }

  /** Returns the catalog's entry of a row; its attributes are shared, so do not change them. */
  item(row: number): CatalogItem {
    return this.#items.getOrMake(row, () => {
      const { items } = this.bundle.manifest.sizes;
      const record = row < items ? this.bundle.record(row) : this.overlay.added[row - items]!;
      const { id, title, ...attributes } = record;
      return { id: id as string, title: String(title ?? ""), attributes };
    });
  }

  /** Returns the vector [d] of a row: its int8 row times its scale. */
  vector(row: number): Float32Array {
    const { codes, scale } = this.#row(row);
    return Float32Array.from(codes, (code) => code * scale);
  }

  /** Returns the int8 row [d] of a row: a direction, without its scale. */
  codes(row: number): Int8Array {
    return this.#row(row).codes;
  }

  /** Returns the scores of rows for a user vector [d], as `rank` does. */
  scores(user: Float32Array, rows: Int32Array): Float64Array {
    const { items } = this.bundle.manifest.sizes;
    if (rows.every((row) => row < items)) {
      return this.index.scores(user, rows);
    }
    const bundled = this.index.scores(user, rows.filter((row) => row < items));
    const ofAdded = shifted(rows.filter((row) => row >= items), -items);
    const added = this.overlay.vectors!.index.scores(user, ofAdded);
    let i = 0;
    let j = 0;
    return Float64Array.from(rows, (row) => (row < items ? bundled[i++]! : added[j++]!));
  }

  /** Returns the k best eligible rows for a user vector [d]. */
  rank(user: Float32Array, k: number, limits: RankingLimits = {}): SearchResult {
    const { excluded = NO_ROWS, eligible = this.allItems } = limits;
    return this.search(user, k, excluded, eligible.masks, eligible.rows);
  }

  /** Returns the eligible newcomers that are neither in a pool nor excluded. */
  newcomersOutside(pool: Int32Array, excluded: Int32Array, eligible: Eligibility): Newcomers {
    return outside(eligible.newcomers, eligible.isNewcomer, pool, excluded);
  }

  /**
   * Returns the k best rows for a user vector [d], without the excluded rows.
   *
   * `masks` hide rows of the bundle and of the added items. Where `rows` are given, only these are
   * ranked, and no mask is looked at.
   */
  search(
    user: Float32Array,
    k: number,
    excluded: Int32Array,
    masks: Masks = this.allItems.masks,
    rows: Int32Array | null = null,
  ): SearchResult {
    if (rows !== null) {
      const left = without(rows, excluded);
      return best(left, this.scores(user, left), k, left.length);
    }
    const [mask, addedMask] = masks;
    const bundled = this.index.top(user, k, excluded, mask ?? undefined);
    const { vectors } = this.overlay;
    if (vectors === null) {
      return bundled;
    }
    const { items } = this.bundle.manifest.sizes;
    const others = shifted(excluded, -items);
    const added = vectors.index.top(user, k, others, addedMask ?? undefined);
    return merged(bundled, added, items, k);
  }

  /** Returns the vector [d] that a new item gets from its text. */
  async project(text: string): Promise<Float32Array> {
    const encoded = await this.encoder.encodeItem(text);
    const matrix = this.bundle.policy["item.project"];
    const { dim, text: t } = this.bundle.manifest.sizes;
    const vector = new Float32Array(dim);
    for (let i = 0; i < dim; i++) {
      let sum = 0;
      for (let j = 0; j < t; j++) {
        sum += matrix[i * t + j]! * encoded[j]!;
      }
      vector[i] = sum;
    }
    return vector;
  }

  /** Returns a scorer that also has these records; the last record of an id counts. */
  async withOverlay(records: readonly OverlayRecord[]): Promise<Scorer> {
    const all = [...this.overlay.records, ...records];
    if (all.length === 0) {
      return this;
    }
    const byId = new Map(all.map((record) => [record.id, record]));
    const added = [...byId.values()].filter((record) => record.text !== undefined);
    const hidden = new Uint8Array(this.bundle.manifest.sizes.items);
    for (const id of byId.keys()) {
      const row = this.bundle.find(id);
      if (row !== null) {
        hidden[row] = 1;
      }
    }
    const vectors = added.length === 0 ? null : await this.#addedVectors(added);
    const mask = new RowMask(hidden);
    return new Scorer(this.bundle, this.#parts, {
      records: [...byId.values()],
      added,
      vectors,
      mask,
    });
  }

  async #addedVectors(added: readonly OverlayRecord[]): Promise<AddedVectors> {
    const vectors: Float32Array[] = [];
    for (const record of added) {
      vectors.push(await this.project(record.text!));
    }
    const d = this.bundle.manifest.sizes.dim;
    const { rows, scale } = quantizeRows(vectors, d);
    const bias = new Float32Array(added.length).fill(this.bundle.policy["item.bias"][0]!);
    return { rows, scale, index: this.kernels.makeIndex({ rows, scale, bias, d }) };
  }

  #row(row: number): { codes: Int8Array; scale: number } {
    const { items, dim } = this.bundle.manifest.sizes;
    const table = row < items ? this.bundle.items : this.overlay.vectors!;
    const i = row < items ? row : row - items;
    return { codes: table.rows.subarray(i * dim, (i + 1) * dim), scale: table.scale[i]! };
  }

  /** Returns the row of an id or `UNKNOWN`, and caches it. */
  #lookUp(item: string): number {
    const row = this.#addedRows.get(item) ?? this.bundle.find(item) ?? UNKNOWN;
    // Emptied rather than trimmed: an LRU would cost every lookup of the hot path.
    if (this.#rows.size >= CACHED_ROWS) {
      this.#rows.clear();
    }
    this.#rows.set(item, row);
    return row;
  }

  #eligibleItems(): Eligibility {
    const { items } = this.bundle.manifest.sizes;
    const { mask, added } = this.overlay;
    const listed = this.bundle.items.newcomers;
    const known = new Set(listed);
    // A changed text makes no newcomer of an item that the fleet knows.
    const addedNewcomers = added.flatMap((record, i) => {
      const row = this.bundle.find(record.id);
      return row === null || known.has(row) ? [items + i] : [];
    });
    const visible = listed.filter((row) => mask === null || mask.hidden[row] === 0);
    const newcomers = concatenate(visible, Int32Array.from(addedNewcomers));
    const isNewcomer = new Uint8Array(items + added.length + 1);
    for (const row of newcomers) {
      isNewcomer[row] = 1;
    }
    return new Eligibility({ items, masks: [mask, null], newcomers, isNewcomer });
  }
}
