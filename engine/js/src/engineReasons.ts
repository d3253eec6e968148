/** What an app calls to learn why a slate shows an item. */

import { checkSlate, type ItemOrId, itemsOnSlate } from "./arguments.js";
import { SearchCalls } from "./engineSearch.js";
import { explainItem } from "./reasons/explainItem.js";
import type { Reasons } from "./reasons.js";
import { setExplainer, type Slate } from "./slate.js";

/** The calls of `Engine` that explain slates. */
export class ReasonCalls extends SearchCalls {
  /**
   * Returns why one of the last 256 slates shows an item: `slate.items[0].why()` does the same.
   *
   * The reasons are those of the time of the decision. Nothing is prepared when a slate is made, so
   * this takes milliseconds, and about as long as encoding them for each word of a context.
   *
   * Throws `RangeError` for an item that is not on the slate, and, with the reason, for an older
   * slate and for one of a user who was forgotten since.
   */
  async why(slate: Slate, item: ItemOrId): Promise<Reasons> {
    checkSlate(slate);
    const [shown] = itemsOnSlate(slate, [item]);
    const inputs = this.profiles.decisionInputs(slate, this.scorer);
    return explainItem(inputs, shown!.id);
  }

  /** Lets the items of a new slate explain themselves. */
  protected letExplain(slate: Slate): void {
    setExplainer(slate.items, (item) => this.why(slate, item));
  }
}
