/** What the engine returns: slates with the exact probability of each item, receipts, replays. */

import type { Reasons } from "./reasons.js";

/** The values of an item's attributes, as JSON holds them. */
export type Attributes = Readonly<Record<string, unknown>>;

/** The fields of a recommended item. */
export interface SlateItemFields {
  /** The item's id. */
  readonly id: string;

  /** The title in the catalog. */
  readonly title: string;

  /** The score under the user's vector. */
  readonly score: number;

  /** The place on the slate, from 0. */
  readonly slot: number;

  /**
   * The place in the greedy order of all eligible items, from 0; of a newcomer the size of the pool
   * plus its place among the newcomers; of a pinned item these two sizes plus its place among the
   * pinned ones.
   */
  readonly rank: number;

  /** Whether exploration chose the item. */
  readonly explored: boolean;

  /** The probability with which this slot drew this item, given the slots above it. */
  readonly propensity: number;

  /** The probability over all slates; null where the scheme has no closed form for it. */
  readonly marginal: number | null;

  /** The other fields of the item in the catalog. */
  readonly attributes: Attributes;

  /** Whether the slot showed it by the quota for newcomers. */
  readonly newcomer: boolean;

  /** Whether the app pinned it to the slot. */
  readonly pinned: boolean;
}

/** Explains an item of a decision while the engine that decided it lives. */
export type Explainer = (item: SlateItem) => Promise<Reasons>;

// No fields: what explains an item is not compared, printed or copied.
const explainers = new WeakMap<SlateItem, Explainer>();

/** Gives items what explains them. */
export function setExplainer(items: Iterable<SlateItem>, explainer: Explainer): void {
  for (const item of items) {
    explainers.set(item, explainer);
  }
}

/** One recommended item. */
export interface SlateItem extends SlateItemFields {}

export class SlateItem {
  constructor(fields: SlateItemFields) {
    Object.assign(this, fields);
  }

  /** Returns why the slate shows this item; of a copy ask `Engine.why`. */
  why(): Promise<Reasons> {
    const explainer = explainers.get(this);
    if (explainer === undefined) {
      const found = "why: expected an item as `recommend` returned it, found a copy of one";
      return Promise.reject(new RangeError(`${found}; ask engine.why(slate, item)`));
    }
    return explainer(this);
  }
}

/** The fields of a slate. */
export interface SlateFields {
  /** The id by which rewards are joined to the decision. */
  readonly decision: string;

  /** The user, as the app named them. */
  readonly user: string;

  /** The pseudonym that stood for the user when the slate was decided. */
  readonly pseudonym: string;

  /** The release that decided. */
  readonly release: number;

  /** The items, by slot. */
  readonly items: readonly SlateItem[];

  /** How many items were eligible, newcomers included. */
  readonly eligible: number;

  /** Why there are fewer items than asked for; empty where there are not. */
  readonly shortage: string;

  /** The ids of the items on the slates that this one came after. */
  readonly earlier: readonly string[];

  /** The arm of the bundle's experiment that this install is in, if it is in one. */
  readonly arm: string | null;
}

/** One decision: its items in the order of their slots, over which it can be iterated. */
export interface Slate extends SlateFields {}

export class Slate implements Iterable<SlateItem> {
  constructor(fields: SlateFields) {
    Object.assign(this, fields);
  }

  /** The number of items. */
  get length(): number {
    return this.items.length;
  }

  [Symbol.iterator](): Iterator<SlateItem> {
    return this.items[Symbol.iterator]();
  }

  /** Returns a slate of the same decision with some of the items: `slate.slice(0, 3)`. */
  slice(start?: number, end?: number): Slate {
    return this.with({ items: this.items.slice(start, end) });
  }

  /** Returns the same slate with other values in some fields. */
  with(fields: Partial<SlateFields>): Slate {
    return new Slate({ ...this, ...fields });
  }

  /** Returns the slate as values that JSON can hold, as `to_dict` does in Python. */
  toJSON(): Omit<SlateFields, "earlier"> {
    const { earlier: _, ...fields }: SlateFields = { ...this };
    return fields;
  }
}

/** One item that `search` or `similar` found. */
export interface FoundItem {
  /** The item's id. */
  readonly id: string;

  /** The title in the catalog. */
  readonly title: string;

  /** How well it fits; comparable within one result. */
  readonly score: number;

  /** The other fields of the item in the catalog. */
  readonly attributes: Attributes;
}

/** What was found, best first. It is no decision, so it has no rewards. */
export class FoundItems implements Iterable<FoundItem> {
  constructor(
    /** The release that was searched. */
    readonly release: number,
    /** The items, best first. */
    readonly items: readonly FoundItem[],
  ) {}

  /** The number of items. */
  get length(): number {
    return this.items.length;
  }

  [Symbol.iterator](): Iterator<FoundItem> {
    return this.items[Symbol.iterator]();
  }
}

/** Whether a reward is durable. */
export interface Receipt {
  /** Whether the reward is known to be durable. */
  readonly stored: boolean;

  /** Why it is not, or not known to be; empty if it is. */
  readonly reason: string;

  /** Whether it is still queued: `Engine.receipt` tells later how that ended. */
  readonly pending: boolean;

  /** What to ask `Engine.receipt` for; empty unless the reward was pending. */
  readonly id: string;
}

/** A decision replayed from its inputs. */
export interface Explanation {
  /** The id of the decision. */
  readonly decision: string;

  /** The release that decided. */
  readonly release: number;

  /** The exploration scheme. */
  readonly scheme: string;

  /** The scheme's probability of exploring. */
  readonly epsilon: number;

  /** How many of the best items exploration could draw from. */
  readonly pool: number;

  /** How many items were eligible. */
  readonly eligible: number;

  /** The ids of the slate without exploration. */
  readonly greedy: readonly string[];

  /** The items of the replayed slate. */
  readonly slate: readonly SlateItem[];

  /** Whether the replayed slate and its probabilities equal the logged ones bit for bit. */
  readonly isIdentical: boolean;
}
