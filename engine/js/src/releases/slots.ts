/**
 * The state of the installed bundles: which one is current, which was before, which never again.
 *
 * Each change is durable when its call resolves, and each call reads the store anew. Only the
 * engine that holds the store's lock may change the state, and call `current`, which counts the
 * starts.
 */

import { decodeJson } from "../bundle/decodeJson.js";
import { BundleError, StorageError, UpdateError } from "../errors.js";
import { bool, checked, field, int, map, struct, text } from "../runtime/structs.js";
import { utf8 } from "../runtime/text.js";
import type { BundleStore } from "./bundleStore.js";
import { fileKey, InstalledSource } from "./installedSource.js";

const FILE = "slots.json";
const MAX_REASON = 500;

/** The content of slots.json. Bundles are named by their release. */
export interface SlotState {
  /** The active bundle; null: the one that the app ships. */
  readonly current: number | null;

  /** The bundle to go back to; null: the one that the app ships. */
  readonly previous: number | null;

  /** Whether `current` has decided a slate. */
  readonly confirmed: boolean;

  /** Whether an engine has started with `current` while it was not confirmed. */
  readonly tried: boolean;

  /** The highest release that was ever confirmed. */
  readonly highest: number;

  /** The releases from `highest` upwards that failed, and why. */
  readonly blocked: ReadonlyMap<number, string>;
}

const release = int({ min: 1 });
const STATE = struct("SlotState", [
  field("current", release, { nullable: true }),
  field("previous", release, { nullable: true }),
  field("confirmed", bool()),
  field("tried", bool()),
  field("highest", int({ min: 0 })),
  field("blocked", map(text({ pattern: /^[1-9][0-9]*$/ }), text())),
]);

const NOTHING: SlotState = {
  current: null,
  previous: null,
  confirmed: false,
  tried: false,
  highest: 0,
  blocked: new Map(),
};

/** The bundles of one store, each under its release. */
export class Slots {
  #trial: number | null = null; // the unconfirmed release that this engine has started with

  constructor(readonly store: BundleStore) {}

  /** Returns what is stored; throws `StorageError` when it cannot be read. */
  async state(): Promise<SlotState> {
    const data = await this.store.read(FILE);
    if (data === null) {
      return NOTHING;
    }
    try {
      const state = checked(STATE, decodeJson(FILE, data)) as Omit<SlotState, "blocked"> & {
        readonly blocked: ReadonlyMap<string, string>;
      };
      const blocked = new Map(Array.from(state.blocked, ([key, why]) => [Number(key), why]));
      return { ...state, blocked };
    } catch (error) {
      throw new StorageError(
        `${this.store.name}: ${FILE}: expected the state of the installed bundles, found:` +
          ` ${(error as Error).message}. The app's own bundle can be used without it; deleting` +
          " the store repairs it, but also removes the protection against older releases",
      );
    }
  }

  /** Returns the files of an installed release; null where it is not installed. */
  async open(number: number): Promise<InstalledSource | null> {
    const manifest = await this.store.read(releaseKey(number));
    return manifest && new InstalledSource(this.store, number, manifest);
  }

  /** Makes a release whose files are stored an installed one. */
  async install(number: number, manifest: Uint8Array): Promise<void> {
    await this.store.write(releaseKey(number), manifest);
  }

  /**
   * Returns the release to open, or null when it is the app's own.
   *
   * The first call after a start counts as the trial of an unconfirmed bundle. If an earlier engine
   * has tried it already and never confirmed it, that one crashed: the bundle is rolled back and
   * blocked.
   */
  async current(): Promise<number | null> {
    const state = await this.state();
    if (state.current === null) {
      return null;
    }
    if (!(await this.#isInstalled(state.current))) {
      return this.rollBack("its files are missing");
    }
    if (!state.confirmed && this.#trial !== state.current) {
      if (state.tried) {
        return this.rollBack("the engine ended before the bundle was confirmed");
      }
      await this.#write({ ...state, tried: true });
      this.#trial = state.current;
    }
    return state.current;
  }

  /** Returns the newest confirmed release, or null; for engines that do not hold the lock. */
  async lastConfirmed(): Promise<number | null> {
    const state = await this.state();
    return this.#ifInstalled(state.confirmed ? state.current : state.previous);
  }

  /** Returns the release that a roll-back from another leads to, or null: the app's own. */
  async previous(number: number): Promise<number | null> {
    const state = await this.state();
    return this.#ifInstalled(state.current === number ? state.previous : null);
  }

  /**
   * Makes an installed release current, unconfirmed.
   *
   * Throws `UpdateError` when it is blocked, not above the highest confirmed one, or not installed.
   */
  async activate(number: number): Promise<void> {
    const state = await this.state();
    let fault = refusal(state, number);
    if (fault === null && !(await this.#isInstalled(number))) {
      fault = `release ${number}: expected a bundle in ${this.store.name}, found none`;
    }
    if (fault !== null) {
      throw new UpdateError(fault);
    }
    // An unconfirmed bundle that is replaced is nothing to go back to.
    const previous = state.confirmed ? state.current : state.previous;
    await this.#write({ ...state, current: number, previous, confirmed: false, tried: false });
    this.#trial = null;
  }

  /**
   * Marks the current bundle as good; only now does `highest` rise.
   *
   * All bundles but the current and the previous one are deleted.
   */
  async confirm(): Promise<void> {
    const state = await this.state();
    if (state.current === null || state.confirmed) {
      return;
    }
    const highest = Math.max(state.highest, state.current);
    const blocked = new Map([...state.blocked].filter(([number]) => number > highest));
    await this.#write({ ...state, confirmed: true, tried: false, highest, blocked });
    await this.#clean();
  }

  /** Takes back this engine's trial: it ends without a crash, and without a decision. */
  async clearTrial(): Promise<void> {
    const state = await this.state();
    if (state.tried && this.#trial === state.current) {
      await this.#write({ ...state, tried: false });
    }
  }

  /**
   * Blocks the current bundle; returns the previous release, or null when it is the app's own.
   *
   * `highest` stays: no release up to it will be installed again.
   */
  async rollBack(reason: string): Promise<number | null> {
    const state = await this.state();
    if (state.current === null) {
      return null;
    }
    await this.#write({
      ...state,
      current: state.previous,
      previous: null,
      confirmed: state.previous !== null,
      tried: false,
      blocked: new Map(state.blocked).set(state.current, reason.slice(0, MAX_REASON)),
    });
    return this.current();
  }

  /** Never installs this release, which is not installed now; what is stored of it is deleted. */
  async block(number: number, reason: string): Promise<void> {
    const state = await this.state();
    const blocked = new Map(state.blocked).set(number, reason.slice(0, MAX_REASON));
    await this.#write({ ...state, blocked });
    await this.#clean();
  }

  /** Deletes all but the current and the previous bundle, and the files that only others need. */
  async #clean(): Promise<void> {
    const { current, previous } = await this.state();
    const needed = new Set<string>();
    for (const number of [current, previous]) {
      const source = number === null ? null : await this.open(number);
      if (source !== null) {
        needed.add(releaseKey(number!));
        keysOf(source).forEach((key) => needed.add(key));
      }
    }
    const keys = await this.store.keys();
    const isOld = (key: string): boolean => /^(files|releases)\//.test(key) && !needed.has(key);
    await Promise.all(keys.filter(isOld).map((key) => this.store.remove(key)));
  }

  async #isInstalled(number: number): Promise<boolean> {
    return (await this.store.read(releaseKey(number))) !== null;
  }

  async #ifInstalled(number: number | null): Promise<number | null> {
    return number !== null && (await this.#isInstalled(number)) ? number : null;
  }

  async #write(state: SlotState): Promise<void> {
    const blocked = Object.fromEntries(state.blocked);
    await this.store.write(FILE, utf8(JSON.stringify({ ...state, blocked })));
  }
}

/** Returns why a release may not become the current one, or null when it may. */
export function refusal(state: SlotState, number: number): string | null {
  const reason = state.blocked.get(number);
  if (reason !== undefined) {
    return `release ${number} is blocked on this device: ${reason}`;
  }
  return number > state.highest
    ? null
    : `release ${number}: expected one above ${state.highest}, the highest that was confirmed on` +
        " this device";
}

function releaseKey(number: number): string {
  return `releases/${number}.json`;
}

/** Returns the keys of a bundle's files; none where its manifest is damaged. */
function keysOf(source: InstalledSource): string[] {
  try {
    return Array.from(source.manifest.files.values(), ({ sha256 }) => fileKey(sha256));
  } catch (error) {
    if (error instanceof BundleError) {
      return [];
    }
    throw error;
  }
}
