/** Waits until rewards are stored, for so long as the app allows, and remembers those that were not
 * in time. */

import type { Outbox } from "../outbox/outbox.js";
import type { Entropy } from "../runtime/clock.js";
import { LruCache } from "../runtime/lruCache.js";
import { hex } from "../runtime/text.js";
import type { Receipt } from "../slate.js";

/** Rewards whose end is remembered, of those that were pending: as many as may be queued. */
const REMEMBERED_RECEIPTS = 10_000;

const STORED: Receipt = { stored: true, reason: "", pending: false, id: "" };

/** The receipts of one engine. */
export class RewardReceipts {
  readonly #outbox: Outbox;
  readonly #entropy: Entropy;
  readonly #pending = new LruCache<string, Receipt>(REMEMBERED_RECEIPTS);

  constructor(outbox: Outbox, entropy: Entropy) {
    this.#outbox = outbox;
    this.#entropy = entropy;
  }

  /** Returns the receipt of a submitted reward, at the latest after `timeoutS` seconds. */
  async wait(done: Promise<void>, timeoutS: number): Promise<Receipt> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<null>((resolve) => {
      timer = setTimeout(() => resolve(null), timeoutS * 1000);
    });
    const ended = this.#ended(done);
    const receipt = await Promise.race([ended, late]);
    clearTimeout(timer);
    if (receipt !== null) {
      return receipt;
    }
    const id = hex(this.#entropy(16));
    const reason =
      `not known to be stored after ${timeoutS} s: ${this.#outbox.fault || "storage is slow"};` +
      " it stays queued, and `engine.receipt(id)` tells how that ends";
    const pending = { stored: false, reason, pending: true, id };
    this.#pending.set(id, pending);
    void ended.then((end) => this.#pending.set(id, end));
    return pending;
  }

  /** Returns how a reward ended that was pending; throws `RangeError` for any other id. */
  get(id: string): Receipt {
    const receipt = this.#pending.peek(id);
    if (receipt === undefined) {
      throw new RangeError(
        `receipt ${id}: expected the id of one of the last ${REMEMBERED_RECEIPTS} pending rewards` +
          " of this engine, found another",
      );
    }
    return receipt;
  }

  async #ended(done: Promise<void>): Promise<Receipt> {
    try {
      await done;
    } catch (error) {
      return refused(error instanceof Error ? error.message : String(error));
    }
    return this.#outbox.isDurable ? STORED : refused(this.#outbox.fault);
  }
}

/** Returns the receipt of a reward that is not stored, and why. */
export function refused(reason: string): Receipt {
  return { stored: false, reason, pending: false, id: "" };
}
