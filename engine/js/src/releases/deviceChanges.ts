/** What the app changed of the catalog on this device, kept for the bundles to come. */

import type { Bundle } from "../bundle/bundle.js";
import { datedAfter, inForce } from "../ranking/catalogOverlay.js";
import type { OverlayRecord } from "../ranking/overlay.js";
import type { Scorer } from "../ranking/scorer.js";
import {
  type ChangeBatch,
  type Changes,
  changesInForce,
  compacted,
} from "../rules/attributeChanges.js";

const MIN_COMPACTED = 1000; // batches

/** The items that were added or removed, and the attributes that were changed. */
export class DeviceChanges {
  // Records that one bundle has no use for may still matter to the one before it.
  readonly #records = new Map<string, OverlayRecord>();
  #batches: ChangeBatch[] = [];
  #limit = MIN_COMPACTED;
  #lastMs = 0; // when attributes were changed last

  /** Returns a scorer that also has these records. */
  async withRecords(scorer: Scorer, records: readonly OverlayRecord[]): Promise<Scorer> {
    // Attributes that were changed before are not those of the new record.
    const dated = datedAfter(records, scorer.bundle, this.#lastMs + 1);
    const changed = await scorer.withOverlay(dated);
    dated.forEach((record) => this.#records.set(record.id, record));
    return changed;
  }

  /** Returns a scorer of the same items with changed attributes; throws `TypeError`. */
  withAttributes(scorer: Scorer, changes: Changes, nowMs: number): Scorer {
    scorer.checkChanges(changes);
    const changed = scorer.withChanges(changes);
    // Newer than the active bundle and the added items, even where the clock is behind.
    const addedMs = Array.from(this.#records.values(), (record) => record.added_ms);
    const leastMs = Math.max(nowMs, createdMs(scorer.bundle), this.#lastMs);
    this.#lastMs = addedMs.reduce((last, ms) => Math.max(last, ms), leastMs);
    this.#batches.push({ changed_ms: this.#lastMs, items: Object.fromEntries(changes) });
    if (this.#batches.length > this.#limit) {
      this.#batches = compacted(this.#batches);
      this.#limit = MIN_COMPACTED + 2 * this.#batches.length;
    }
    return changed;
  }

  /** Returns the scorer of a bundle with all that is still in force under it. */
  async appliedTo(scorer: Scorer): Promise<Scorer> {
    const { bundle } = scorer;
    const added = await scorer.withOverlay(inForce([...this.#records.values()], bundle));
    const addedMs = new Map(added.overlay.added.map((record) => [record.id, record.added_ms]));
    const records = {
      createdMs: createdMs(bundle),
      find: (item: string) => bundle.find(item),
      record: (row: number) => bundle.record(row),
    };
    const changes = changesInForce(this.#batches, records, addedMs);
    return changes.size === 0 ? added : added.withChanges(changes);
  }
}

function createdMs(bundle: Bundle): number {
  return bundle.manifest.created * 1000;
}
