/** The parts of an engine: how they are opened, joined and closed. */

import { checkTimeout } from "./arguments.js";
import { Bundle } from "./bundle/bundle.js";
import type { BundleSource } from "./bundle/source.js";
import { loadKernels } from "./kernels/loadKernels.js";
import { type EngineOptions, type StateOptions, stateOptions } from "./options.js";
import { openOutbox } from "./outbox/openOutbox.js";
import type { Outbox } from "./outbox/outbox.js";
import { checkGolden } from "./ranking/goldenCheck.js";
import { onnxRuntimeWeb } from "./ranking/onnxRuntimeWeb.js";
import { Scorer } from "./ranking/scorer.js";
import { CatalogStore } from "./releases/catalogStore.js";
import { type Clock, type Entropy, SYSTEM_CLOCK, systemEntropy } from "./runtime/clock.js";
import { isPage, watchPage } from "./upload/pageEvents.js";
import { Uploader } from "./upload/uploader.js";
import { Recommender } from "./users/recommendation.js";
import { RewardReceipts } from "./users/rewardReceipts.js";
import { UserProfiles } from "./users/userProfiles.js";

/** What an engine is made of, once all of it is open. */
export interface OpenedParts {
  readonly scorer: Scorer;
  readonly outbox: Outbox;
  readonly catalog: CatalogStore;
  readonly state: StateOptions;
  readonly clock: Clock;
  readonly entropy: Entropy;
}

/** What `Engine` is made of; its public methods are there. */
export class EngineParts {
  /** Set it to false to stop exploring from the next slate on. */
  exploring = true;

  protected readonly clock: Clock;
  protected readonly entropy: Entropy;
  protected readonly state: StateOptions;
  protected readonly outbox: Outbox;
  protected readonly catalog: CatalogStore;
  protected readonly profiles: UserProfiles;
  protected readonly recommender: Recommender;
  protected readonly receipts: RewardReceipts;
  protected readonly uploader: Uploader | null;
  readonly #unwatchPage: () => void;
  #scorer: Scorer;
  #lastChange: Promise<unknown> = Promise.resolve();
  #closed: Promise<void> | null = null;

  /** For subclasses and `open`. */
  protected constructor({ scorer, outbox, catalog, state, clock, entropy }: OpenedParts) {
    this.clock = clock;
    this.entropy = entropy;
    this.state = state;
    this.outbox = outbox;
    this.catalog = catalog;
    this.#scorer = scorer;
    const { windowS, shareContext, privacy } = state;
    const records = state.state !== null;
    const options = { windowS, shareContext, privacy, entropy, records };
    this.profiles = new UserProfiles(outbox, options);
    this.recommender = new Recommender(entropy);
    this.receipts = new RewardReceipts(outbox, entropy);
    this.uploader = this.#startUploader();
    this.#unwatchPage = this.uploader === null ? () => {} : watchPage(this.uploader);
  }

  /** Why rewards are not durable, or null. */
  get storageFault(): string | null {
    return this.outbox.fault || null;
  }

  /** Stores what is queued and ends uploading; unsent events stay stored. Idempotent. */
  async close(timeoutS = 2): Promise<void> {
    checkTimeout(timeoutS);
    this.#closed ??= this.#close();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, timeoutS * 1000)));
    await Promise.race([this.#closed, late]);
    clearTimeout(timer);
  }

  /** The active release. */
  get release(): number {
    return this.scorer.bundle.manifest.release;
  }

  /** The active scorer. Read it once a call: a change of the catalog replaces it. */
  protected get scorer(): Scorer {
    return this.#scorer;
  }

  /** Replaces the scorer by what `change` makes of it, one change after the other. */
  protected changeScorer(change: (scorer: Scorer) => Promise<Scorer>): Promise<void> {
    const changed = this.#lastChange.then(async () => {
      this.#scorer = await change(this.#scorer);
    });
    this.#lastChange = changed.catch(() => undefined); // the next change begins where this one did
    return changed;
  }

  /**
   * Closes reward windows that have ended, and takes what other tabs have changed; returns the wall
   * clock in ms, read once a call.
   */
  protected async beginCall(): Promise<number> {
    const nowMs = this.clock.wallMs();
    await this.profiles.begin(nowMs);
    if (this.catalog.isStale) {
      await this.changeScorer((scorer) => this.catalog.restored(scorer));
    }
    return nowMs;
  }

  #startUploader(): Uploader | null {
    const { transport, mayUpload } = this.state;
    if (transport === null) {
      return null;
    }
    const uploader = new Uploader(this.outbox, transport, {
      mayUpload,
      onEmpty: () => this.#onEmpty(),
      onRotate: () => this.profiles.requestRotation(),
      clock: this.clock,
      random: () => this.entropy(4).reduce((sum, byte) => sum / 256 + byte, 0) / 256,
    });
    uploader.start(isPage());
    return uploader;
  }

  /** Does what waits until all is uploaded: overwrites deleted bytes, rotates the identity. */
  async #onEmpty(): Promise<void> {
    await this.outbox.scrubPending();
    if (this.profiles.prepareRotation(this.state.pseudonymDays, this.clock.wallMs())) {
      await this.outbox.rotateIdentity();
    }
  }

  async #close(): Promise<void> {
    this.#unwatchPage();
    await this.outbox.close(); // before the uploader, whose post may take longer than the app waits
    await this.uploader?.stop();
  }
}

/** Opens the bundle of a source and the outbox, checks of the options first. */
export async function openParts(
  source: BundleSource,
  options: EngineOptions,
): Promise<OpenedParts> {
  const state = stateOptions(options);
  const { clock = SYSTEM_CLOCK, entropy = systemEntropy } = options;
  const outboxOptions = { limitBytes: state.outboxBytes, clock, entropy };
  const bundled = await openScorer(source, options);
  const outbox = await openOutbox(state.state, outboxOptions);
  const catalog = new CatalogStore(outbox);
  const scorer = await catalog.restored(bundled);
  return { scorer, outbox, catalog, state, clock, entropy };
}

async function openScorer(source: BundleSource, options: EngineOptions): Promise<Scorer> {
  const [bundle, kernels] = await Promise.all([
    Bundle.open(source, options.verify ?? false),
    options.kernels ?? loadKernels(),
  ]);
  const scorer = Scorer.of(bundle, kernels, options.encoder ?? onnxRuntimeWeb);
  if (options.verify === true) {
    await checkGolden(scorer);
  }
  return scorer;
}
