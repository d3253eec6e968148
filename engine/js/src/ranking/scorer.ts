/** Scores the items of a bundle, and those that this device added, for a user vector. */

import type { Bundle } from "../bundle/bundle.js";
import { BundleError } from "../errors.js";
import type { Int8Index, KernelSet, SearchResult } from "../kernels/kernelSet.js";
import { RowMask } from "../kernels/rowMask.js";
import type { Changes } from "../rules/attributeChanges.js";
import { bestBoosted } from "../rules/boosts.js";
import { applyCaps, BundleGroups, type Cap, CatalogCaps } from "../rules/caps.js";
import { BundleColumns, CatalogAttributes } from "../rules/catalogAttributes.js";
import { RuleCache } from "../rules/ruleCache.js";
import type { Boost, Rule } from "../rules/types.js";
import { LruCache } from "../runtime/lruCache.js";
import { releaseWith } from "../runtime/releaseWith.js";
import { isPlacedAlike, type Placing, vectorOfNew } from "./addedItems.js";
import { allItemsOf } from "./allItems.js";
import { type CatalogItem, readItem } from "./catalogItem.js";
import type { Eligibility, Masks } from "./eligibility.js";
import { FeatureMap } from "./features.js";
import { Newcomers, outside } from "./newcomers.js";
import {
  type AddedVectors,
  type CatalogOverlay,
  EMPTY_OVERLAY,
  type KnownVectors,
  type OverlayRecord,
} from "./overlay.js";
import { quantizeRows } from "./quantization.js";
import { best, merged, NO_ROWS, shifted, without } from "./rows.js";
import { BundleTextEncoder, type EncoderRuntime } from "./textEncoder.js";
import { UserModel } from "./userModel.js";

const CACHED_ROWS = 65536; // ids whose rows are kept
const CACHED_ITEMS = 4096; // rows whose catalog entries are kept

/** The row of an id that is in neither the bundle nor the overlay. */
const UNKNOWN = -1;

/** What all scorers of one bundle share; `columns` and `groups` are filled on demand. */
interface BundleParts {
  readonly kernels: KernelSet;
  readonly index: Int8Index;
  readonly encoder: BundleTextEncoder;
  readonly userModel: UserModel;
  readonly columns: BundleColumns;
  readonly groups: BundleGroups;
  readonly itemFeatures: FeatureMap | null;
  readonly contextFeatures: FeatureMap | null;
}

/** What limits one ranking. */
export interface RankingLimits {
  /** Rows that may not be returned; -1 is ignored. */
  readonly excluded?: Int32Array;

  /** What may be shown; all items unless given. */
  readonly eligible?: Eligibility;

  /** How many items of each value of an attribute may be among the returned and the taken ones. */
  readonly atMost?: ReadonlyMap<string, number>;

  /** Rows that count against caps, which have to be excluded ones. */
  readonly taken?: Int32Array;
}

const NO_CAPS: ReadonlyMap<string, number> = new Map();

/**
 * Scores users against items; rows 0 … n-1 are the bundle's items, row n + i is added item i.
 *
 * A changed catalog makes another scorer: this one is immutable but for caches.
 */
export class Scorer implements Placing {
  /** What may be shown without rules: all but replaced and removed items. */
  readonly allItems: Eligibility;

  /** Names the space of user states and vectors: those of another space mean nothing here. */
  readonly space: string;

  readonly #parts: BundleParts;
  readonly #addedRows: ReadonlyMap<string, number>;
  readonly #removed: ReadonlySet<string>;
  readonly #rows = new Map<string, number>();
  readonly #items = new LruCache<number, CatalogItem>(CACHED_ITEMS);
  readonly #attributes: CatalogAttributes;
  readonly #rules: RuleCache;
  readonly #caps: CatalogCaps;

  private constructor(
    readonly bundle: Bundle,
    parts: BundleParts,
    readonly overlay: CatalogOverlay,
    attributes?: CatalogAttributes,
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
    this.allItems = allItemsOf(bundle, overlay);
    const { added, changed } = overlay;
    this.#attributes = attributes ?? new CatalogAttributes(parts.columns, items, added, changed);
    this.#rules = new RuleCache(this.allItems, this.#attributes);
    this.#caps = new CatalogCaps(parts.groups, items, added, changed);
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
      columns: new BundleColumns(bundle),
      groups: new BundleGroups(bundle),
      itemFeatures: bundle.itemFeatures && new FeatureMap(bundle.itemFeatures),
      contextFeatures: bundle.contextFeatures && new FeatureMap(bundle.contextFeatures),
    };
    releaseWith(parts, index);
    releaseWith(parts, model);
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

  /** How attributes of added items become numbers, in bundles that have such features. */
  get itemFeatures(): FeatureMap | null {
    return this.#parts.itemFeatures;
  }

  /** How declared context features become numbers, in bundles that have them. */
  get contextFeatures(): FeatureMap | null {
    return this.#parts.contextFeatures;
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
    return this.#items.getOrMake(row, () => readItem(this.bundle, this.overlay, row));
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

  /**
   * Returns what may be shown under a rule, and of listed ids alone, if they are given, with what
   * boosts add to scores.
   *
   * Throws as `CatalogAttributes.matches` and `rowBoosts` do. The rows of rules are kept.
   */
  eligible(
    rule: Rule | null,
    listed: readonly string[] | null,
    boosts: readonly Boost[] = [],
  ): Eligibility {
    return this.#rules.eligible(rule, listed && this.rowsOf(listed), boosts);
  }

  /** Returns the caps of a request, which count items of the bundle and of the device. */
  caps(atMost: ReadonlyMap<string, number>): Cap[] {
    return this.#caps.of(atMost);
  }

  /** Returns the k best eligible rows for a user vector [d]. */
  rank(user: Float32Array, k: number, limits: RankingLimits = {}): SearchResult {
    const { excluded = NO_ROWS, eligible = this.allItems, atMost = NO_CAPS, taken } = limits;
    const search = (count: number, left: Int32Array): SearchResult => {
      if (eligible.boosts === null) {
        return this.search(user, count, left, eligible.masks, eligible.rows);
      }
      const { parts } = eligible;
      const found = parts.map(({ masks, rows }) => this.search(user, count, left, masks, rows));
      return bestBoosted(found, parts.map((part) => part.boost), count);
    };
    return atMost.size === 0
      ? search(k, excluded)
      : applyCaps(search, this.caps(atMost), k, excluded, taken);
  }

  /**
   * Returns the eligible newcomers that are neither in a pool of k items, `taken`, nor excluded.
   *
   * Under caps only the k best for a user vector [d] of which no group, together with the pool, has
   * more than its cap: then no slate drawn from both can exceed one.
   */
  newcomersOutside(user: Float32Array, k: number, limits: Required<RankingLimits>): Newcomers {
    const { excluded, eligible, atMost, taken } = limits;
    if (atMost.size === 0) {
      return outside(eligible.newcomers, eligible.isNewcomer, taken, excluded);
    }
    const rows = eligible.rows === null ? null : eligible.newcomers;
    const search = (count: number, left: Int32Array): SearchResult =>
      this.search(user, count, left, eligible.newcomerMasks, rows);
    return new Newcomers(applyCaps(search, this.caps(atMost), k, excluded, taken).rows);
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

  /** Returns the scorer of the same bundle without what the device changed. */
  withoutOverlay(): Scorer {
    return new Scorer(this.bundle, this.#parts, EMPTY_OVERLAY);
  }

  /** Returns the vectors [d] of added items, by id. */
  addedVectors(): Map<string, Float32Array> {
    const { added, vectors } = this.overlay;
    return new Map(added.map(({ id }, i) => [id, vectors!.floats[i]!]));
  }

  /**
   * Returns a scorer that also has these records; the last record of an id counts.
   *
   * Texts are encoded, but for those of `known` items.
   */
  async withOverlay(
    records: readonly OverlayRecord[],
    known: KnownVectors = new Map(),
  ): Promise<Scorer> {
    const all = [...this.overlay.records, ...records];
    if (all.length === 0) {
      return this;
    }
    const byId = new Map(all.map((record) => [record.id, record]));
    const changes = new Set(records.map(({ id }) => id));
    // What the app changed of items that were added before stays.
    const current = new Map(this.overlay.added.map((record) => [record.id, record]));
    const given = [...byId.values()].filter((record) => record.text !== undefined);
    const added = given.map((record) =>
      changes.has(record.id) ? record : current.get(record.id)!,
    );
    const hidden = new Uint8Array(this.bundle.manifest.sizes.items);
    for (const id of byId.keys()) {
      const row = this.bundle.find(id);
      if (row !== null) {
        hidden[row] = 1;
      }
    }
    const vectors = added.length === 0 ? null : await this.#vectorsOf(given, known);
    const mask = new RowMask(hidden);
    return new Scorer(this.bundle, this.#parts, {
      records: [...byId.values()],
      added,
      vectors,
      mask,
      changed: this.overlay.changed,
    });
  }

  /** Throws `TypeError` for a changed value of another type than its attribute's. */
  checkChanges(changes: Changes): void {
    this.#attributes.check(changes);
  }

  /**
   * Throws `TypeError` for an added value of another type than its attribute's.
   *
   * A bundle without columns would have to read its whole catalog for that: any value passes.
   */
  checkAdded(records: readonly OverlayRecord[]): void {
    if (this.bundle.columns !== null) {
      this.#attributes.check(new Map(records.map((record) => [record.id, record])), "items");
    }
  }

  /** Returns a scorer of the same items with changed attributes; unknown ids are ignored. */
  withChanges(changes: Changes): Scorer {
    const n = this.bundle.manifest.sizes.items;
    const changed = new Map(this.overlay.changed);
    // `records` stay as they were added: their vectors do.
    const added = new Map(this.overlay.added.map((record) => [record.id, record]));
    const rows: number[] = [];
    for (const [item, attributes] of changes) {
      const row = this.find(item) ?? UNKNOWN;
      if (row >= n) {
        added.set(item, { ...added.get(item)!, ...attributes });
      } else if (row !== UNKNOWN) {
        changed.set(row, { ...changed.get(row), ...attributes });
        rows.push(row);
      }
    }
    const overlay = { ...this.overlay, added: [...added.values()], changed };
    const attributes = this.#attributes.changedBy(overlay.added, changed, rows);
    return new Scorer(this.bundle, this.#parts, overlay, attributes);
  }

  /** Loads what the first recommendation with caps and rules on these attributes waits for. */
  loadAttributes(attributes: Iterable<string>): void {
    for (const attribute of attributes) {
      this.#caps.groupsBy(attribute);
      this.#attributes.load(attribute);
    }
  }

  async #vectorsOf(added: readonly OverlayRecord[], known: KnownVectors): Promise<AddedVectors> {
    const before = this.addedVectors();
    const records = new Map(this.overlay.records.map((record) => [record.id, record]));
    const floats: Float32Array[] = [];
    for (const record of added) {
      const { id } = record;
      const kept = isPlacedAlike(this, records.get(id), record) ? before.get(id) : undefined;
      floats.push(known.get(id) ?? kept ?? (await vectorOfNew(this, record)));
    }
    const d = this.bundle.manifest.sizes.dim;
    const { rows, scale } = quantizeRows(floats, d);
    const bias = new Float32Array(added.length).fill(this.bundle.policy["item.bias"][0]!);
    const index = this.kernels.makeIndex({ rows, scale, bias, d });
    const made = { rows, scale, index, floats };
    releaseWith(made, index);
    return made;
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
}
