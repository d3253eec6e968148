/** What an app calls about a slate after it was shown, and about what is stored. */

import {
  checkFlags,
  checkNames,
  checkSlate,
  checkTexts,
  checkTimeout,
  checkValue,
  type ItemOrId,
  itemsOnSlate,
} from "./arguments.js";
import { EngineParts } from "./engineParts.js";
import { isIterable, StorageError, typeName } from "./errors.js";
import type { OutboxCounters } from "./outbox/outbox.js";
import type { UpdateCounters } from "./releases/activeBundle.js";
import type { Receipt, Slate, SlateItem } from "./slate.js";
import type { UploadCounters } from "./upload/uploader.js";
import type { EncoderCounters } from "./users/recommendation.js";
import { refused } from "./users/rewardReceipts.js";

/** Seconds that `reward` waits for the storage unless its caller chooses: nothing is blocked. */
const REWARD_TIMEOUT_S = 10;

/** How a reward is recorded. */
export interface RewardArguments {
  /** The kind of behaviour: "click" for positive and "skip" for other values unless given. */
  readonly kind?: string | null;

  /**
   * Whether the reward also updates the user's state, as `observe` does: a positive one does unless
   * given. Pass false if the app observes it itself.
   */
  readonly observe?: boolean | null;

  /** How many seconds to wait for the storage, 0 to 3600; 10 unless given. 0 only queues. */
  readonly timeoutS?: number;
}

/** What became of events, uploads, contexts and updates. */
export interface EngineCounters {
  readonly release: number;

  /** Why rewards are not durable; null where they are. */
  readonly storageFault: string | null;

  /** Null without `state`. */
  readonly outbox: OutboxCounters | null;

  /** Null without `collector` and `transport`. */
  readonly upload: UploadCounters | null;
  readonly encoder: EncoderCounters;
  readonly updates: UpdateCounters;
}

/** The calls of `Engine` that tell what became of a slate, and what is stored. */
export class RewardCalls extends EngineParts {
  /**
   * Records which items of a slate the user saw, by default all.
   *
   * Those without a reward when the window of `windowS` ends count as -1. Nothing is recorded when
   * the user was forgotten since. Throws `RangeError` for an item that is not on the slate, and
   * where the engine was opened without `windowS`.
   */
  async seen(slate: Slate, items?: Iterable<ItemOrId>): Promise<void> {
    checkSlate(slate);
    if (this.state.windowS === null) {
      throw new RangeError("seen: expected an engine opened with `windowS`, found one without");
    }
    const seen = items === undefined ? slate.items : itemsOnSlate(slate, items);
    const nowMs = await this.beginCall();
    this.profiles.openWindow(slate, seen, nowMs, this.scorer);
  }

  /** Records the reward of one shown item. See `rewardAll`. */
  async reward(
    slate: Slate,
    item: ItemOrId,
    value: number,
    given: RewardArguments = {},
  ): Promise<Receipt> {
    return this.rewardAll(slate, [[item, value]], given);
  }

  /**
   * Records the rewards of items that were seen; durable when the receipt says `stored`.
   *
   * Each value lies in [-1, 1]: 1 for a click, -1 for seen and not clicked. Items not named were
   * not seen. The receipt comes when the reward is on disk, at the latest after `timeoutS`; then it
   * says `pending` and why, the reward stays queued, and `receipt` tells later how that ended.
   *
   * A storage error is reported by the receipt, never thrown. Throws `RangeError` for a value out
   * of range, an item that is not on the slate, or a `kind` that is not 1 to 512 characters of
   * valid Unicode, `TypeError` for a wrong type.
   */
  async rewardAll(
    slate: Slate,
    values: Iterable<readonly [ItemOrId, number]>,
    given: RewardArguments = {},
  ): Promise<Receipt> {
    checkSlate(slate);
    checkNames("reward", given, ["kind", "observe", "timeoutS"]);
    const { kind = null, observe = null } = given;
    const timeoutS = checkTimeout(given.timeoutS ?? REWARD_TIMEOUT_S);
    checkFlags({ observe });
    if (kind !== null) {
      checkTexts({ kind });
    }
    const rewards = { slate, values: rewardsBySlot(slate, values), kind, observe };
    if (this.state.state === null) {
      return refused(`the reward was not stored: ${this.storageFault}`);
    }
    const nowMs = await this.beginCall();
    const done = this.profiles.recordRewards(rewards, nowMs, this.scorer);
    void done.then(() => this.uploader?.wake(), () => {});
    return this.receipts.wait(done, timeoutS);
  }

  /**
   * Returns how a reward ended whose receipt was `pending`, or that it still is.
   *
   * Throws `RangeError` for any other id than those of the last 10,000 pending receipts of this
   * engine.
   */
  async receipt(id: string): Promise<Receipt> {
    checkTexts({ id });
    return this.receipts.get(id);
  }

  /**
   * Records organic behaviour: it updates the user's state at once and is uploaded later.
   *
   * Throws `RangeError` unless `item` and `kind` have 1 to 512 characters of valid Unicode.
   */
  async observe(user: string, item: string, kind = "view"): Promise<void> {
    checkTexts({ user, item, kind });
    await this.beginCall();
    this.profiles.observe(user, item, kind, this.scorer);
  }

  /**
   * Erases every trace of a user on this device, events that are not sent yet included.
   *
   * What was uploaded is erased on the collector's side, by install. A user who comes back is a new
   * one. Throws `StorageError` when the storage could not be changed: something may remain.
   */
  async forgetUser(user: string): Promise<void> {
    checkTexts({ user });
    await this.beginCall();
    await this.profiles.forget(user);
    if (this.state.state !== null && !this.outbox.isDurable) {
      throw new StorageError(`forgotten in memory but not in the storage: ${this.storageFault}`);
    }
  }

  /**
   * Uploads what is stored; returns whether all of it was acknowledged within the time.
   *
   * Honours the current backoff: after a failed attempt it returns false at once and sends nothing
   * until the wait is over.
   */
  async flush(timeoutS = 10): Promise<boolean> {
    checkTimeout(timeoutS);
    await this.beginCall();
    return this.uploader?.drain(timeoutS) ?? false;
  }

  /** Returns what became of events, uploads, contexts and updates, for the app's own monitoring. */
  counters(): EngineCounters {
    return {
      release: this.release,
      storageFault: this.storageFault,
      outbox: this.state.state === null ? null : this.outbox.counters(),
      upload: this.uploader === null ? null : { ...this.uploader.counters },
      encoder: { ...this.recommender.counters },
      updates: { ...this.active.counters },
    };
  }
}

/**
 * Returns items of a slate with their checked rewards, in the order of the slots: the app's own
 * order could reveal what the user touched first. The last reward of an item counts.
 */
function rewardsBySlot(
  slate: Slate,
  values: Iterable<readonly [ItemOrId, number]>,
): [SlateItem, number][] {
  if (!isIterable(values)) {
    throw new TypeError(
      `values: expected pairs of an item and its reward, such as a Map, found ${typeName(values)}`,
    );
  }
  const pairs = Array.from(values, (pair): readonly [ItemOrId, number] => {
    if (!Array.isArray(pair)) {
      throw new TypeError(
        `values: expected pairs such as [slate.items[0], 1], found ${typeName(pair)} among them`,
      );
    }
    return pair as unknown as readonly [ItemOrId, number];
  });
  const items = itemsOnSlate(slate, pairs.map(([item]) => item));
  const rewards = new Map(items.map((item, i) => [item, checkValue(pairs[i]![1])]));
  return [...rewards].sort(([a], [b]) => a.slot - b.slot);
}
