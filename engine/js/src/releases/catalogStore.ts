/**
 * What the app changed of the catalog on this device, stored: items that it added or removed, and
 * attributes. It outlives releases, identities and the page.
 *
 * A key for each item. An added item is stored with its vector, so that a page that is loaded again
 * need not load the encoder.
 */

import type { Bundle } from "../bundle/bundle.js";
import { CATALOG } from "../outbox/contents.js";
import type { Outbox } from "../outbox/outbox.js";
import { vectorOfNew } from "../ranking/addedItems.js";
import { inForce } from "../ranking/catalogOverlay.js";
import type { OverlayRecord } from "../ranking/overlay.js";
import type { Scorer } from "../ranking/scorer.js";
import { type ChangeBatch, type Changes, changesInForce } from "../rules/attributeChanges.js";
import { base64, unbase64 } from "../runtime/text.js";

const ITEM = `${CATALOG}item/`;
const ATTRIBUTES = `${CATALOG}attributes/`;

/** An added item has a vector [d], in base64 of float32, of the encoder and policy `space`. */
interface StoredItem {
  readonly record: OverlayRecord;
  readonly space?: string;
  readonly vector?: string;
}

/** By attribute when it was changed, in ms since 1970, and its value. */
type StoredAttributes = Readonly<Record<string, readonly [number, unknown]>>;

/** The changes of one outbox. */
export class CatalogStore {
  readonly #outbox: Outbox;
  #known: ReadonlyMap<string, string> = new Map();
  #mayHaveChanged = false;
  #lastMs = 0;

  constructor(outbox: Outbox) {
    this.#outbox = outbox;
    outbox.onReload(() => {
      this.#mayHaveChanged = true;
    });
  }

  /** Returns whether another tab has changed the catalog since `restored` or a change here. */
  get isStale(): boolean {
    if (!this.#mayHaveChanged) {
      return false;
    }
    this.#mayHaveChanged = false;
    const stored = this.#outbox.states(CATALOG);
    const isSame = (value: string, key: string) => this.#known.get(key) === value;
    return (
      stored.size !== this.#known.size || ![...stored].every(([key, value]) => isSame(value, key))
    );
  }

  /** When the last change of an attribute was made: items added later are not dated before. */
  get lastMs(): number {
    return this.#lastMs;
  }

  /**
   * Returns the scorer of a bundle with the stored changes.
   *
   * An added item whose text cannot be encoded is left out until that is possible.
   */
  async restored(scorer: Scorer): Promise<Scorer> {
    this.#known = this.#outbox.states(CATALOG);
    const { bundle } = scorer;
    const items = this.#entries<StoredItem>(ITEM);
    const vectors = new Map<string, Float32Array>();
    const usable: OverlayRecord[] = [];
    for (const record of inForce([...items.values()].map((item) => item.record), bundle)) {
      const vector = await vectorOf(scorer, items.get(record.id)!);
      if (vector !== null) {
        vectors.set(record.id, vector);
      }
      if (vector !== null || record.text === undefined) {
        usable.push(record);
      }
    }
    const overlaid = await scorer.withoutOverlay().withOverlay(usable, vectors);
    const { added } = overlaid.overlay;
    const addedMs = new Map(added.map((record) => [record.id, record.added_ms]));
    const batches = this.#batches();
    this.#lastMs = Math.max(this.#lastMs, batches.at(-1)?.changed_ms ?? 0);
    const changes = changesInForce(batches, recordsOf(bundle), addedMs);
    return changes.size === 0 ? overlaid : overlaid.withChanges(changes);
  }

  /** Stores items that were added or removed, with their vectors; throws `StorageError`. */
  putItems(records: readonly OverlayRecord[], scorer: Scorer): Promise<void> {
    const vectors = scorer.addedVectors();
    const space = textSpace(scorer.bundle);
    const states = records.map((record): [string, string] => {
      const vector = vectors.get(record.id);
      const item: StoredItem =
        vector === undefined ? { record } : { record, space, vector: base64(bytesOf(vector)) };
      return [ITEM + record.id, JSON.stringify(item)];
    });
    return this.#put(() => states);
  }

  /** Stores changed attributes; throws `StorageError`. */
  putChanges(changes: Changes, changedMs: number): Promise<void> {
    this.#lastMs = Math.max(this.#lastMs, changedMs);
    return this.#put(() =>
      Array.from(changes, ([item, attributes]): [string, string] => {
        const key = ATTRIBUTES + item;
        const before = JSON.parse(this.#outbox.state(key) ?? "{}") as StoredAttributes;
        const dated = Object.entries(attributes).map(([name, value]) => [name, [changedMs, value]]);
        const all = Object.fromEntries([...Object.entries(before), ...dated]);
        return [key, JSON.stringify(all)];
      }),
    );
  }

  /** Stores what `change` returns, which is called again where another tab was faster. */
  async #put(change: () => readonly [string, string][]): Promise<void> {
    await this.#outbox.store(() => new Map(change()));
    // Where another tab was faster, its changes are stored, but not in this engine's scorer yet.
    if (!this.#mayHaveChanged) {
      this.#known = this.#outbox.states(CATALOG);
    }
  }

  /** Returns the changes of attributes one by one, oldest first. */
  #batches(): ChangeBatch[] {
    const batches: ChangeBatch[] = [];
    for (const [item, attributes] of this.#entries<StoredAttributes>(ATTRIBUTES)) {
      for (const [name, [changedMs, value]] of Object.entries(attributes)) {
        batches.push({ changed_ms: changedMs, items: { [item]: { [name]: value } } });
      }
    }
    return batches.sort((a, b) => a.changed_ms - b.changed_ms);
  }

  #entries<Value>(prefix: string): Map<string, Value> {
    const stored = this.#outbox.states(prefix);
    return new Map(
      Array.from(stored, ([key, text]) => [key.slice(prefix.length), JSON.parse(text) as Value]),
    );
  }
}

/** Names the encoder and the policy that make vectors of texts: others make others. */
function textSpace({ manifest }: Bundle): string {
  return ["encoder.onnx", "tokenizer.json", "policy.safetensors"]
    .map((name) => manifest.files.get(name)!.sha256.slice(0, 16))
    .join("");
}

/** Returns the vector of an added item; null for a removed one, and where it cannot be encoded. */
async function vectorOf(scorer: Scorer, item: StoredItem): Promise<Float32Array | null> {
  const { record, space, vector } = item;
  if (record.text === undefined) {
    return null;
  }
  if (vector !== undefined && space === textSpace(scorer.bundle)) {
    return new Float32Array(unbase64(vector).buffer as ArrayBuffer);
  }
  try {
    return await vectorOfNew(scorer, record);
  } catch (error) {
    console.warn(`sanderling: added item ${record.id} left out: ${(error as Error).message}`);
    return null;
  }
}

function bytesOf(vector: Float32Array): Uint8Array {
  return new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);
}

function recordsOf(bundle: Bundle) {
  return {
    createdMs: bundle.manifest.created * 1000,
    find: (item: string) => bundle.find(item),
    record: (row: number) => bundle.record(row),
  };
}
