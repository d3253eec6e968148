/** One person at the page: the engine, what is on the shelf, what they said of it, their rules. */

import type {
  Attributes,
  Engine,
  FoundItem,
  Reasons,
  Slate,
  SlateItem,
} from "../src/index.js";
import { loadChoices, saveChoices, type Choices, type Verdict } from "./choices.js";
import type { CatalogEntry, Columns, Range } from "./columns.js";
import type { PageBundle } from "./opening.js";

/** How many items are on the shelf: it fills rows of two, three, four and six. */
export const SHELF_ITEMS = 12;

/** The event of the document when a reward is durable; `detail` names its slot. */
const STORED = "sanderling:stored";

const USER = "you";
const KIND_LIKED = "like";

/** One card: a recommended item, or one that a search found. */
export interface Card {
  readonly id: string;
  readonly title: string;
  readonly attributes: Attributes;

  /** The place on the slate and its probability; null for what a search found. */
  readonly slot: SlateItem | null;
}

/** What is on the shelf. */
export interface Shelf {
  readonly cards: readonly Card[];

  /** How many of them were not on it before. */
  readonly changed: number;

  /** How many items the rules allow; null for a search. */
  readonly eligible: number | null;

  /** Milliseconds of the engine's call. */
  readonly took: number;

  /** The words that were searched; empty for recommendations. */
  readonly query: string;
}

/** Calls the engine for one person, one call after another, in the order of their clicks. */
export class Session {
  private slate: Slate | null = null;
  private shown: readonly string[] = [];
  private queue: Promise<unknown> = Promise.resolve();

  private constructor(
    private readonly bundle: PageBundle,
    private readonly columns: Columns,
    private readonly catalog: readonly CatalogEntry[],
    readonly choices: Choices,
    private opened: Engine,
  ) {}

  /** Returns a session with what was chosen on the last visit. */
  static async open(
    bundle: PageBundle,
    columns: Columns,
    catalog: readonly CatalogEntry[],
  ): Promise<Session> {
    const choices = loadChoices();
    return new Session(bundle, columns, catalog, choices, await bundle.open(choices.epsilon));
  }

  /** The engine. */
  get engine(): Engine {
    return this.opened;
  }

  /** Returns what belongs on the shelf now: the results of the query, or a new slate. */
  refresh(): Promise<Shelf> {
    return this.inOrder(() => this.fill());
  }

  /**
   * Stores what the person thinks of an item; resolves when it is durable.
   *
   * An item of a slate gets a reward, one that was found an observation.
   */
  judge(card: Card, isLiked: boolean): Promise<void> {
    return this.inOrder(async () => {
      const of = this.slate;
      if (card.slot !== null && of !== null) {
        const receipt = await this.engine.reward(of, card.id, isLiked ? 1 : -1);
        if (!receipt.stored) {
          throw new Error(receipt.reason);
        }
        const detail = { decision: of.decision, slot: card.slot.slot, item: card.id };
        document.dispatchEvent(new CustomEvent(STORED, { detail }));
      } else if (isLiked) {
        await this.engine.observe(USER, card.id, KIND_LIKED);
      }
      const verdict: Verdict = { id: card.id, title: card.title, isLiked };
      this.choices.verdicts = [...this.choices.verdicts.filter((v) => v.id !== card.id), verdict];
      saveChoices(this.choices);
    });
  }

  /** Returns why the shelf shows an item; null for what a search found. */
  why(card: Card): Promise<Reasons | null> {
    return this.inOrder(async () =>
      card.slot === null || this.slate === null ? null : this.engine.why(this.slate, card.id),
    );
  }

  /** Erases the person on this device. */
  forget(): Promise<void> {
    return this.inOrder(async () => {
      await this.engine.forgetUser(USER);
      this.choices.verdicts = [];
      saveChoices(this.choices);
    });
  }

  /** Explores with another share from the next slate on: the engine is opened anew with it. */
  explore(epsilon: number): Promise<void> {
    return this.inOrder(async () => {
      this.choices.epsilon = epsilon;
      saveChoices(this.choices);
      await this.opened.close();
      this.opened = await this.bundle.open(epsilon);
    });
  }

  /** Keeps changed rules for the next visit. */
  keepChoices(): void {
    saveChoices(this.choices);
  }

  private async fill(): Promise<Shelf> {
    const { query } = this.choices;
    const start = performance.now();
    const cards = query === "" ? await this.recommended() : await this.found(query);
    const took = performance.now() - start;

    const before = new Set(this.shown);
    this.shown = cards.map((card) => card.id);
    return {
      cards,
      changed: this.shown.filter((id) => !before.has(id)).length,
      eligible: query === "" ? this.slate!.eligible : null,
      took,
      query,
    };
  }

  private async recommended(): Promise<readonly Card[]> {
    this.slate = await this.engine.recommend({
      user: USER,
      k: SHELF_ITEMS,
      exclude: this.choices.verdicts.map((verdict) => verdict.id),
      ...this.rules(),
    });
    return this.slate.items.map((item) => ({ ...card(item), slot: item }));
  }

  private async found(query: string): Promise<readonly Card[]> {
    this.slate = null;
    const { where = null } = this.rules();
    const found = await this.engine.search(query, { user: USER, k: SHELF_ITEMS, where });
    return found.items.map((item) => ({ ...card(item), slot: null }));
  }

  /** Returns the rules as arguments of the engine; none where everything is allowed. */
  private rules(): { where?: Record<string, unknown>; among?: readonly string[] } {
    const { category, range } = this.columns;
    const { labels, span } = this.choices;
    const where: Record<string, unknown> = {};
    if (category !== null && labels.length > 0) {
      where[category.name] = { any: labels.flatMap((label) => category.valuesOf(label)) };
    }
    if (range === null || span === null) {
      return Object.keys(where).length > 0 ? { where } : {};
    }
    const [low, high] = span;
    if (range.isInTitle) {
      const among = this.between(range, low, high + range.step);
      return Object.keys(where).length > 0 ? { where, among } : { among };
    }
    where[range.name] = {
      ...(low > range.low ? { ge: low } : {}),
      ...(high < range.high ? { lt: high + range.step } : {}),
    };
    return { where };
  }

  private between(range: Range, low: number, end: number): readonly string[] {
    const isWithin = (item: CatalogEntry): boolean => {
      const value = range.valueOf(item);
      return value !== null && (low <= range.low || value >= low) && value < end;
    };
    return this.catalog.filter(isWithin).map((item) => item.id);
  }

  private inOrder<T>(task: () => Promise<T>): Promise<T> {
    const done = this.queue.then(task);
    this.queue = done.catch(() => undefined);
    return done;
  }
}

function card(item: SlateItem | FoundItem): Omit<Card, "slot"> {
  return { id: item.id, title: item.title, attributes: item.attributes };
}
