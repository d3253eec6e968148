/** The engine, which an app embeds: recommendations and behaviour behind one class. */

import {
  checkCaps,
  checkContext,
  checkDiversity,
  checkFlags,
  checkK,
  checkNames,
  checkPins,
  checkSeveral,
  checkTexts,
  idsOf,
  type ContextFeatures,
  type ItemOrId,
  pagesBefore,
} from "./arguments.js";
import { type BundleSource, FetchSource } from "./bundle/source.js";
import { explain } from "./decide.js";
import type { RecommendRequest } from "./decision.js";
import { openParts } from "./engineParts.js";
import { ReleaseCalls } from "./engineReleases.js";
import { typeName } from "./errors.js";
import type { EngineOptions } from "./options.js";
import { checkContextValues } from "./ranking/contexts.js";
import type { Scorer } from "./ranking/scorer.js";
import { parseBoosts } from "./rules/boosts.js";
import { rulesOf, withBundleRules } from "./rules/bundleRules.js";
import { checkKnown } from "./rules/pins.js";
import type { Where } from "./rules/types.js";
import { parseRule } from "./rules/where.js";
import type { Explanation, Slate } from "./slate.js";

/** The arguments of `recommend`. */
export interface RecommendArguments {
  readonly user: string;

  /** At most so many items, 1 to 1000; 10 unless given. */
  readonly k?: number;

  /**
   * Any text about the user's situation, or features that the lab's schema declares and `text`:
   * `{ hour: 18, text: "rain" }`; unknown names are ignored (docs/ATTRIBUTES.md).
   */
  readonly context?: string | ContextFeatures | null;

  /** Ids not to show, or items of a slate; unknown ids are ignored. */
  readonly exclude?: Iterable<ItemOrId>;

  /**
   * A rule that items must meet, such as
   * `{ price: { lt: 50 }, genre: { any: ["jazz", "folk"] } }` (docs/RULES.md).
   */
  readonly where?: Where | null;

  /** The only items to rank. */
  readonly among?: Iterable<ItemOrId> | null;

  /** The page before: nothing of it is repeated, nor of the pages that it came after. */
  readonly after?: Slate | null;

  /**
   * How many items may share a value of an attribute, each value of a list counting:
   * `{ author: 2 }`. The first use of an attribute reads the whole catalog (see `warmUp`).
   */
  readonly atMost?: Readonly<Record<string, number>>;

  /** What is added to scores: `[{ where: { genre: "jazz" }, by: 0.5 }]`. */
  readonly boost?: Iterable<{ readonly where: Where; readonly by: number }>;

  /**
   * Items at fixed slots, from 0: `{ 0: "sku-1" }`. A pin gives way where its item breaks another
   * rule or was removed.
   */
  readonly pin?: Readonly<Record<number, ItemOrId>>;

  /** How much it counts that an item is unlike those before it, 0 to 1. */
  readonly diversity?: number;

  /** Turns exploration off. */
  readonly greedy?: boolean;
}

const ARGUMENTS = [
  "user", "k", "context", "exclude", "where", "among", "after", "atMost", "boost", "pin",
  "diversity", "greedy",
];

/** What `warmUp` makes ready. */
export interface WarmUpOptions {
  /** Whether the encoder of texts is loaded. */
  readonly encoder?: boolean;

  /** The attributes that caps and rules will ask for. */
  readonly attributes?: Iterable<string>;

  /** Whether what the first calls of `search` and `similar` need is made. */
  readonly search?: boolean;
}

/** A recommender in the app's own page or process. Made by `Engine.open`. */
export class Engine extends ReleaseCalls {
  /**
   * Opens the bundle that the app ships, or a newer one that was installed since.
   *
   * `source` is a URL of the bundle's folder, or another source.
   *
   * Throws `BundleError` when the bundle does not open, `TypeError` or `RangeError` for a wrong
   * option. Where nothing can be stored, recommending goes on and `storageFault` says why.
   */
  static async open(
    source: BundleSource | URL | string,
    options: EngineOptions = {},
  ): Promise<Engine> {
    const isUrl = typeof source === "string" || source instanceof URL;
    if (!isUrl && typeof source?.read !== "function") {
      throw new TypeError(
        `source: expected the URL of the bundle's folder, or a source such as FolderSource, found` +
          ` ${typeName(source)}`,
      );
    }
    return new Engine(await openParts(isUrl ? new FetchSource(source) : source, options));
  }

  /**
   * Returns a slate of at most k items for a user, known or not.
   *
   * The slate is shorter than k where fewer items are eligible, or where ids of more than 66 bytes
   * leave no room for 1000 of them in one event; its `shortage` says which.
   *
   * Throws `TypeError` for an argument of a wrong type or name, `RangeError` unless 1 <= k <= 1000,
   * caps are at least 1, `diversity` is in [0, 1], pins are distinct items of the catalog in slots
   * below k, and rules are of attributes that an item has; never for the contents of `user` and
   * `context`.
   */
  async recommend(given: RecommendArguments): Promise<Slate> {
    const request = requestOf(given);
    const isGreedy = given.greedy === true || !this.exploring;
    const nowMs = await this.beginCall();
    const { scorer } = this;
    const asked = withBundleRules(rulesOf(scorer.bundle), request);
    checkContextValues(asked.context, scorer.contextFeatures);
    checkKnown(scorer, asked.pin);
    if (this.active.isUnconfirmed) {
      // What does not fit the catalog is the caller's error: nothing is rolled back for it.
      scorer.eligible(asked.where, null, asked.boost);
    }
    try {
      return await this.#decide(scorer, asked, isGreedy, nowMs);
    } catch (error) {
      const next = await this.active.scorerAfter(scorer, error);
      const again = withBundleRules(rulesOf(next.bundle), request);
      return this.#decide(next, again, isGreedy, nowMs);
    }
  }

  /** Replays one of the last 256 decisions bit for bit. Throws `RangeError` for any other id. */
  async explain(decision: string): Promise<Explanation> {
    checkTexts({ decision });
    return explain(this.profiles.decisionRecord(decision));
  }

  /** Computes what the first calls would wait for. */
  async warmUp(options: WarmUpOptions = {}): Promise<void> {
    checkNames("warmUp", options, ["encoder", "attributes", "search"]);
    checkFlags({ encoder: options.encoder, search: options.search });
    const attributes = checkSeveral("attributes", options.attributes ?? []);
    attributes.forEach((attributes) => checkTexts({ attributes }));
    const { scorer } = this;
    scorer.loadAttributes(attributes as string[]);
    if (options.search === true) {
      this.itemSearch.warmUp(scorer);
    }
    scorer.rank(scorer.userModel.userVector(scorer.userModel.initialState()), 1);
    if (options.encoder === true) {
      await scorer.encoder.load();
    }
  }

  async #decide(
    scorer: Scorer,
    request: RecommendRequest,
    isGreedy: boolean,
    nowMs: number,
  ): Promise<Slate> {
    const slate = await this.recommender.recommend(
      this.profiles, scorer, request, isGreedy, nowMs,
    );
    this.active.confirm(scorer.bundle);
    this.letExplain(slate);
    return slate;
  }
}

function requestOf(given: RecommendArguments): RecommendRequest {
  checkNames("recommend", given, ARGUMENTS);
  const { user, diversity = 0 } = given;
  checkTexts({ user });
  checkFlags({ greedy: given.greedy });
  const k = checkK(given.k ?? 10);
  return {
    user,
    k,
    context: checkContext(given.context),
    exclude: idsOf("exclude", given.exclude ?? []),
    atMost: checkCaps(given.atMost ?? {}),
    pin: checkPins(given.pin ?? {}, k),
    where: given.where == null ? null : parseRule(given.where),
    among: given.among == null ? null : idsOf("among", given.among),
    earlier: given.after == null ? [] : pagesBefore(user, given.after),
    diversity: checkDiversity(diversity),
    boost: parseBoosts(given.boost ?? []),
  };
}
