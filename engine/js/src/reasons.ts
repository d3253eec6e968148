/** Why an item stands in its slot, as data; `docs/REASONS.md` explains every figure. */

/** What two items have in common: a description, not a cause of the score. */
export interface SharedTrait {
  /** The field of the catalog: `title` or an attribute. */
  readonly field: string;

  /** The text, word of a text, or entry of a list that both have there, in lower case. */
  readonly value: string;

  /** The share of a sample of the catalog's items that have it. */
  readonly share: number;
}

/** What one past event did to the item's score. */
export interface EventReason {
  /** The id of the event's item. */
  readonly item: string;

  /** Its title, its id where the catalog has none. */
  readonly title: string;

  /** The kind of behaviour. */
  readonly kind: string;

  /** How many events before the decision: 1 is the latest. */
  readonly ago: number;

  /** The item's score less what it would be had this event never happened. */
  readonly effect: number;

  /** What the event's item and this one have in common, rarest first. */
  readonly shared: readonly SharedTrait[];
}

/** What one word of a text did to the item's score. */
export interface WordReason {
  /** The word, in lower case. */
  readonly word: string;

  /** Where it stands: `text` is the text of an item that this device added. */
  readonly source: "context" | "text";

  /** The item's score less what it would be had the text not had this word. */
  readonly effect: number;
}

/** What the item's bias, which is the same for every user, did to its score. */
export interface PopularityReason {
  /** The bias, a term of the score. */
  readonly bias: number;

  /** The bias less the mean bias of the bundle's items. */
  readonly aboveMean: number;

  /** The share of the bundle's items that have a lower bias. */
  readonly percentile: number;
}

/** What a slot would have shown without exploration, under the same rules. */
export interface GreedyChoice {
  /** The item's id. */
  readonly id: string;

  /** The item's title. */
  readonly title: string;

  /** The item's score for the user. */
  readonly score: number;
}

/** Why a slate shows an item in a slot. */
export interface Reasons {
  /** The id of the decision. */
  readonly decision: string;

  /** The release that decided. */
  readonly release: number;

  /** The item's id. */
  readonly item: string;

  /** The item's title. */
  readonly title: string;

  /** The slot, from 0. */
  readonly slot: number;

  /** All of it in one sentence of English. */
  readonly sentence: string;

  /** The item's score for the user, boosts included. */
  readonly score: number;

  /** What the app's boosts added to it; the effects below are on the rest. */
  readonly boost: number;

  /** The score less that of a user without events, in the same context. */
  readonly historyEffect: number;

  /** The events that the device has kept, the one that raised the score most first. */
  readonly events: readonly EventReason[];

  /** How many events are kept. */
  readonly eventsKnown: number;

  /** How many events made the user's state; the older ones are not kept one by one. */
  readonly eventsTotal: number;

  /** The score less what it would be without the events that are not kept; 0 where all are. */
  readonly olderEffect: number;

  /**
   * Whether the kept events make the user's state bit for bit, so that each effect of an event is
   * exact to the last bit. Otherwise it is exact up to the rounding of what older events left.
   */
  readonly isExact: boolean;

  readonly popularity: PopularityReason;

  /** The score less that without the context; null without one. */
  readonly contextEffect: number | null;

  /**
   * The words of the context, and of the item's text where this device added the item, the one that
   * raised the score most first. The first 32 words of each text are tried.
   */
  readonly words: readonly WordReason[];

  /** The place in the greedy order, as on the slate. */
  readonly rank: number;

  /** How many items were eligible. */
  readonly eligible: number;

  /** How many of the best items exploration could draw from. */
  readonly pool: number;

  /** The exploration scheme. */
  readonly scheme: string;

  /** The scheme's probability of exploring. */
  readonly epsilon: number;

  /** Whether exploration chose the item. */
  readonly explored: boolean;

  /** Whether the quota for newcomers chose it. */
  readonly newcomer: boolean;

  /** Whether the app pinned it to the slot. */
  readonly pinned: boolean;

  /** The probability with which this slot drew this item, given the slots above it. */
  readonly propensity: number;

  /** The probability over all slates, null without a closed form. */
  readonly marginal: number | null;

  /** What this slot would have shown without exploration. */
  readonly greedy: GreedyChoice | null;

  /** The rules in force in this slot, by name. */
  readonly rules: Readonly<Record<string, unknown>>;

  /** How many items of a better score rules kept out of the pool. */
  readonly passedOver: number;
}
