/** What an app calls to change the catalog on its device. */

import { checkSeveral, idsOf, type ItemOrId } from "./arguments.js";
import { RewardCalls } from "./engineRewards.js";
import { addition, datedAfter, removal } from "./ranking/catalogOverlay.js";
import type { OverlayRecord } from "./ranking/overlay.js";
import { checkedChanges } from "./rules/attributeChanges.js";
import type { Attributes } from "./slate.js";

/**
 * An item to add: its text is encoded, all other fields are attributes, of which those that the
 * bundle was trained with place it too (docs/ATTRIBUTES.md).
 */
export interface NewItem {
  readonly id: string;
  readonly text: string;

  /** What slates show; the text unless given. */
  readonly title?: string;

  readonly [attribute: string]: unknown;
}

/** The calls of `Engine` that add items to the catalog, change and remove them. */
export class CatalogCalls extends RewardCalls {
  /**
   * Adds or replaces items, each with `id`, `text` and any attributes to show at once.
   *
   * Values that JSON changes become what JSON makes of them: a date its ISO text, NaN null.
   *
   * Throws `TypeError` for a single item and for a value of another type than its attribute's,
   * `RangeError` naming the field that is wrong,
   * `StorageError` where it cannot be stored; then nothing was added.
   */
  async upsertItems(items: Iterable<NewItem>): Promise<void> {
    const given = checkSeveral("items", items);
    const nowMs = await this.beginCall();
    await this.#change(given.map((item) => addition(item, nowMs)));
  }

  /**
   * Changes attributes of items, in effect from the next call on: `{ "sku-1": { stock: 0 } }`.
   *
   * Nothing is encoded: an item keeps its vector. null takes an attribute away. Unknown ids are
   * remembered for bundles that have them. A change gives way to a bundle that was created later
   * and has that attribute of the item. The first change of an attribute reads the whole catalog
   * (see `warmUp`).
   *
   * Throws `TypeError` for another form and for a value of another type than the attribute's,
   * `RangeError` for `id`, `title` and `text` and for what JSON cannot hold, `StorageError` as
   * `upsertItems` does; then nothing was changed.
   */
  async setAttributes(changes: Readonly<Record<string, Attributes>>): Promise<void> {
    const checked = checkedChanges(changes);
    const nowMs = await this.beginCall();
    await this.active.change(async (scorer) => {
      scorer.checkChanges(checked);
      // Newer than the active bundle and the added items, even where the clock is behind.
      const addedMs = scorer.overlay.records.map((record) => record.added_ms);
      const createdMs = scorer.bundle.manifest.created * 1000;
      const oldest = addedMs.reduce((last, each) => Math.max(last, each), createdMs);
      const changed = scorer.withChanges(checked);
      await this.catalog.putChanges(checked, Math.max(nowMs, oldest, this.catalog.lastMs));
      return changed;
    });
  }

  /**
   * Never shows these items again, under any bundle, until `upsertItems` brings them back.
   *
   * Unknown ids are remembered too. Throws `TypeError` for a single id, `RangeError` for what
   * cannot be an id, `StorageError` as `upsertItems` does; then nothing was removed.
   */
  async removeItems(ids: Iterable<ItemOrId>): Promise<void> {
    const removed = idsOf("ids", ids);
    const nowMs = await this.beginCall();
    await this.#change(removed.map((id) => removal(id, nowMs)));
  }

  #change(records: readonly OverlayRecord[]): Promise<void> {
    return this.active.change(async (scorer) => {
      scorer.checkAdded(records);
      // Attributes that were changed before are not those of the new record.
      const dated = datedAfter(records, scorer.bundle, this.catalog.lastMs + 1);
      const changed = await scorer.withOverlay(dated);
      await this.catalog.putItems(dated, changed);
      return changed;
    });
  }
}
