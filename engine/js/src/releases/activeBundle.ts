/**
 * The active bundle: the newest that was installed and has not failed, else the app's own.
 *
 * A swap is one assignment, between two calls. The store is locked while a release is installed or
 * on trial, so that of several tabs one counts starts and confirms, and the others use what is
 * confirmed.
 */

import { Bundle } from "../bundle/bundle.js";
import { MANIFEST_FILE, parseManifest } from "../bundle/manifest.js";
import type { BundleSource } from "../bundle/source.js";
import { SanderlingError, StorageError, UpdateError } from "../errors.js";
import type { Scorer } from "../ranking/scorer.js";
import type { BundleStore } from "./bundleStore.js";
import type { ScorerFactory } from "./scorerFactory.js";
import { Slots } from "./slots.js";

/** What became of updates, since the engine was opened. */
export interface UpdateCounters {
  /** Calls of `Engine.update`. */
  attempts: number;

  /** Releases that were swapped in. */
  installed: number;

  /** Calls that threw. */
  failed: number;

  /** Releases that were rolled back, by the app or because their first request failed. */
  rolledBack: number;

  /** Why the last call that threw did, or the last release was rolled back. */
  lastFault: string | null;
}

/** Installs a bundle newer than the active one; returns its scorer, or null: there is none. */
export type Install = (slots: Slots, active: Scorer) => Promise<Scorer | null>;

/** The active scorer, and the moves to a newer bundle and back. */
export class ActiveBundle {
  readonly counters: UpdateCounters = {
    attempts: 0,
    installed: 0,
    failed: 0,
    rolledBack: 0,
    lastFault: null,
  };

  readonly #app: BundleSource;
  readonly #slots: Slots | null;
  #restored = async (scorer: Scorer): Promise<Scorer> => scorer;
  #scorer!: Scorer; // set by `open`
  #isUnconfirmed = false;
  #before: Bundle | null = null; // what the bundle on trial has replaced in this engine
  #unlock: (() => Promise<void>) | null = null;
  #storing: Promise<void> = Promise.resolve(); // what confirmations and ended trials change
  #lastChange: Promise<unknown> = Promise.resolve();
  #isUpdating = false;
  #isClosed = false;

  private constructor(
    app: BundleSource,
    readonly scorers: ScorerFactory,
    store: BundleStore | null,
  ) {
    this.#app = app;
    this.#slots = store && new Slots(store);
  }

  /** Opens the newest bundle; throws `BundleError` where the app's own is it, and does not open. */
  static async open(
    app: BundleSource,
    scorers: ScorerFactory,
    store: BundleStore | null,
  ): Promise<ActiveBundle> {
    const active = new ActiveBundle(app, scorers, store);
    const installed = await active.#openInstalled();
    if (installed === null) {
      await active.#giveBack();
    }
    active.#isUnconfirmed = active.#unlock !== null;
    active.#scorer = installed ?? (await scorers.open(app));
    return active;
  }

  /** The active scorer. Read it once a call: a swap replaces it. */
  get scorer(): Scorer {
    return this.#scorer;
  }

  /** The active release. */
  get release(): number {
    return this.#scorer.bundle.manifest.release;
  }

  /** Whether the active bundle is on trial: it was installed and has decided nothing yet. */
  get isUnconfirmed(): boolean {
    return this.#isUnconfirmed;
  }

  /** Gives scorers what the app has changed of the catalog: the present one and those to come. */
  async restoreWith(restored: (scorer: Scorer) => Promise<Scorer>): Promise<void> {
    this.#restored = restored;
    await this.change(restored);
  }

  /** Replaces the scorer by what `change` makes of it, one change after the other. */
  change(change: (scorer: Scorer) => Promise<Scorer>): Promise<void> {
    return this.#serially(async () => {
      this.#scorer = await change(this.#scorer);
    });
  }

  /**
   * Swaps in the bundle that `install` installs; returns its release, or null: there is none.
   *
   * Throws `UpdateError` when another engine holds the store, and whatever `install` throws; the
   * active bundle stays.
   */
  async update(install: Install): Promise<number | null> {
    this.counters.attempts += 1;
    try {
      const release = await this.#update(install);
      this.counters.installed += release === null ? 0 : 1;
      return release;
    } catch (error) {
      this.counters.failed += 1;
      this.counters.lastFault = messageOf(error);
      throw error;
    }
  }

  /**
   * Marks the bundle that decided a slate as good, in the background: a request must not wait for
   * the disk. Does nothing when that bundle is no longer active.
   */
  confirm(decidedBy: Bundle): void {
    if (!this.#isUnconfirmed || decidedBy !== this.#scorer.bundle) {
      return;
    }
    this.#isUnconfirmed = false;
    this.#before = null;
    this.#store((slots) => slots.confirm(), "the release could not be confirmed");
    this.#storing = this.#storing.then(() => this.#giveBack());
  }

  /**
   * Activates the previous bundle, or the app's own, and blocks the failed release.
   *
   * Returns false, and does nothing, when `failed` is given and no longer active. Throws
   * `BundleError` where neither of these opens, and then stays; `StorageError` when the roll-back
   * could not be stored: the previous bundle is active all the same.
   */
  rollBack(reason: string, failed: Bundle | null = null): Promise<boolean> {
    return this.#serially(async () => {
      if (failed !== null && failed !== this.#scorer.bundle) {
        return false;
      }
      await this.#storing;
      const { release } = this;
      this.#scorer = await this.#previousScorer(release);
      this.counters.rolledBack += 1;
      this.counters.lastFault = `release ${release}: ${reason}`;
      this.#isUnconfirmed = false;
      this.#before = null;
      await this.#storeRollBack(release, reason);
      return true;
    });
  }

  /**
   * Returns the scorer with which a request that failed is tried once more: the active one, after a
   * roll-back where the failed one was on trial, or that of another call's swap.
   *
   * Throws the error where neither is so: it is the caller's.
   */
  async scorerAfter(failed: Scorer, error: unknown): Promise<Scorer> {
    if (failed.bundle === this.#scorer.bundle) {
      if (!this.#isUnconfirmed) {
        throw error;
      }
      await this.#abandon(failed.bundle, error);
    }
    return this.#scorer;
  }

  /** Lets the next start try a release that has decided nothing yet: this page may end now. */
  endTrial(): void {
    if (this.#isUnconfirmed) {
      this.#store((slots) => slots.clearTrial(), "the release's trial could not be ended");
    }
  }

  /** Waits for a confirmation; lets the next start try a release that decided nothing. */
  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.#isUnconfirmed) {
      this.#isUnconfirmed = false;
      this.#store((slots) => slots.clearTrial(), "the next start will roll the release back");
    }
    await this.#storing;
    if (!this.#isUpdating) {
      await this.#giveBack();
    }
  }

  async #update(install: Install): Promise<number | null> {
    const slots = this.#slots;
    if (slots === null) {
      throw new UpdateError(
        "expected an engine opened with `state`, `releases` and `root`, found no `state`",
      );
    }
    this.#checkOpen();
    if (this.#isUpdating) {
      throw new UpdateError("another update is running in this engine; await it");
    }
    this.#isUpdating = true;
    try {
      await this.#storing;
      await this.#takeForUpdate(slots.store);
      const others = await this.#confirmedElsewhere(slots);
      const scorer = others ?? (await install(slots, this.#scorer));
      if (scorer !== null) {
        await this.#serially(() => this.#swap(slots, scorer, others !== null));
      }
      return scorer && scorer.bundle.manifest.release;
    } finally {
      this.#isUpdating = false;
      if (!this.#isUnconfirmed) {
        await this.#giveBack();
      }
    }
  }

  async #swap(slots: Slots, scorer: Scorer, isConfirmed: boolean): Promise<void> {
    const changed = await this.#restored(scorer);
    changed.rank(changed.userModel.userVector(changed.userModel.initialState()), 1);
    this.#checkOpen(); // it may have been closed meanwhile
    if (!isConfirmed) {
      await slots.activate(changed.bundle.manifest.release);
      // An unconfirmed bundle that is replaced is nothing to go back to.
      this.#before = this.#isUnconfirmed ? this.#before : this.#scorer.bundle;
    }
    this.#isUnconfirmed = !isConfirmed;
    this.#scorer = changed;
  }

  /** Returns the scorer of a newer release that another tab has installed and confirmed. */
  async #confirmedElsewhere(slots: Slots): Promise<Scorer | null> {
    const { current, confirmed } = await slots.state();
    if (current === null || !confirmed || current <= this.release) {
      return null;
    }
    const source = await slots.open(current);
    return source && this.scorers.open(source);
  }

  async #takeForUpdate(store: BundleStore): Promise<void> {
    this.#unlock ??= await store.lock();
    if (this.#unlock === null) {
      throw new UpdateError(
        `${store.name}: another engine, such as one in another tab, installs or tries a release;` +
          " try again when it has ended",
      );
    }
  }

  /** Returns the scorer of the bundle that was installed, where that is newer than the app's. */
  async #openInstalled(): Promise<Scorer | null> {
    try {
      const source = await this.#installedSource();
      if (source === null) {
        return null;
      }
      const manifest = parseManifest((await source.read(MANIFEST_FILE))!);
      const isNewer = manifest.release > (await this.#appRelease());
      return isNewer ? await this.scorers.open(source) : null;
    } catch (error) {
      if (!(error instanceof SanderlingError)) {
        throw error;
      }
      warn("the installed bundle does not open, using the app's own", error);
      return null;
    }
  }

  /** Returns the bundle to open; keeps the store's lock where that is one on trial. */
  async #installedSource(): Promise<BundleSource | null> {
    const slots = this.#slots;
    const state = await slots?.state();
    if (!slots || !state || state.current === null) {
      return null;
    }
    const confirmed = state.confirmed ? await slots.open(state.current) : null;
    if (confirmed !== null) {
      return confirmed;
    }
    // To count a trial, or to roll back, is a change: only one engine may do that.
    this.#unlock = await slots.store.lock();
    const isOwner = this.#unlock !== null;
    const release = isOwner ? await slots.current() : await slots.lastConfirmed();
    if ((await slots.state()).confirmed) {
      await this.#giveBack();
    }
    return release === null ? null : slots.open(release);
  }

  /** Returns the release of the app's own bundle; 0 where that cannot be read, as off line. */
  async #appRelease(): Promise<number> {
    try {
      return parseManifest((await this.#app.read(MANIFEST_FILE)) ?? new Uint8Array(0)).release;
    } catch (error) {
      if (error instanceof SanderlingError) {
        return 0;
      }
      throw error;
    }
  }

  async #previousScorer(release: number): Promise<Scorer> {
    if (this.#before !== null) {
      return this.#restored(await this.scorers.of(this.#before));
    }
    try {
      const previous = (await this.#slots?.previous(release)) ?? null;
      const source = previous === null ? null : await this.#slots!.open(previous);
      if (source !== null) {
        return await this.#restored(await this.scorers.open(source));
      }
    } catch (error) {
      // Whatever is wrong with it, requests must be answered.
      warn("the previous bundle does not open, using the app's own", error);
    }
    return this.#restored(await this.scorers.open(this.#app));
  }

  async #storeRollBack(release: number, reason: string): Promise<void> {
    const slots = this.#slots;
    if (slots === null) {
      return;
    }
    this.#unlock ??= await slots.store.lock();
    if (this.#unlock === null) {
      throw new StorageError(
        `${slots.store.name}: release ${release} is no longer active here, but another engine,` +
          " such as one in another tab, holds the installed bundles: nothing was stored",
      );
    }
    try {
      // Another tab may have moved on already.
      if ((await slots.state()).current === release) {
        await slots.rollBack(reason);
      }
    } finally {
      if (!this.#isUpdating) {
        await this.#giveBack();
      }
    }
  }

  /**
   * Rolls back a release whose first request failed, unless it was replaced since.
   *
   * When that cannot be stored, the next start finds a release that was tried and not confirmed,
   * and rolls it back then.
   */
  async #abandon(failed: Bundle, error: unknown): Promise<void> {
    const { release } = failed.manifest;
    const reason = `failed on its first request: ${messageOf(error).slice(0, 200)}`;
    try {
      if (await this.rollBack(reason, failed)) {
        warn(`release ${release} failed on its first request and was rolled back`, error);
      }
    } catch (fault) {
      if (!(fault instanceof StorageError)) {
        throw error; // there is no other bundle: the request fails
      }
      warn(`release ${release} failed on its first request, which could not be stored`, fault);
    }
  }

  /** Changes the stored state in the background; a failure is a warning. */
  #store(change: (slots: Slots) => Promise<void>, fault: string): void {
    const changed = this.#storing.then(() => change(this.#slots!));
    this.#storing = changed.catch((error) => warn(fault, error));
  }

  /** Runs a change after those before it, however they ended. */
  #serially<T>(change: () => Promise<T>): Promise<T> {
    const changed = this.#lastChange.then(change);
    this.#lastChange = changed.catch(() => undefined);
    return changed;
  }

  #checkOpen(): void {
    if (this.#isClosed) {
      throw new UpdateError("expected an open engine, found a closed one; nothing was changed");
    }
  }

  async #giveBack(): Promise<void> {
    const unlock = this.#unlock;
    this.#unlock = null;
    await unlock?.();
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function warn(what: string, error: unknown): void {
  console.warn(`sanderling: ${what}: ${messageOf(error)}`);
}
