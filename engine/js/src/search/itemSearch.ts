/** What searches in the active catalog need, made on the first search and kept until it changes. */

import type { Scorer } from "../ranking/scorer.js";
import { SimilarItems } from "./similar.js";
import { TextSearch } from "./textSearch.js";

/**
 * The searches of one engine; a swap of the bundle or its catalog remakes them.
 *
 * What depends on the bundle alone is kept when only the device's own changes differ.
 */
export class ItemSearch {
  #similar: SimilarItems | null = null;
  #text: TextSearch | null = null;

  /** Makes what searches in a catalog need. */
  warmUp(scorer: Scorer): void {
    this.similar(scorer);
    this.text(scorer);
  }

  /** Returns the search for similar items in a catalog. */
  similar(scorer: Scorer): SimilarItems {
    const last = this.#similar;
    if (last?.scorer !== scorer) {
      last?.release();
      const isSame = last !== null && last.scorer.bundle === scorer.bundle;
      if (last !== null && !isSame) {
        last.bundled.index.release();
      }
      this.#similar = new SimilarItems(scorer, isSame ? last.bundled : undefined);
    }
    return this.#similar!;
  }

  /** Returns the search by words in a catalog; the first one of a bundle reads all of it. */
  text(scorer: Scorer): TextSearch {
    const last = this.#text;
    if (last?.scorer !== scorer) {
      const isSame = last !== null && last.scorer.bundle === scorer.bundle;
      this.#text = new TextSearch(scorer, isSame ? last.bundle : undefined);
    }
    return this.#text!;
  }
}
