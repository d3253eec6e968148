/** The parts of an engine: how they are opened, joined and closed. */

import { checkTimeout } from "./arguments.js";
import type { BundleSource } from "./bundle/source.js";
import { loadKernels } from "./kernels/loadKernels.js";
import { type EngineOptions, type StateOptions, stateOptions } from "./options.js";
import { openOutbox } from "./outbox/openOutbox.js";
import type { Outbox } from "./outbox/outbox.js";
import { onnxRuntimeWeb } from "./ranking/onnxRuntimeWeb.js";
import type { Scorer } from "./ranking/scorer.js";
import { ActiveBundle } from "./releases/activeBundle.js";
import { CatalogStore } from "./releases/catalogStore.js";
import { ScorerFactory } from "./releases/scorerFactory.js";
import { type Clock, type Entropy, SYSTEM_CLOCK, systemEntropy } from "./runtime/clock.js";
import { isPage, onPageEnd, watchPage } from "./upload/pageEvents.js";
import { Uploader } from "./upload/uploader.js";
import { Recommender } from "./users/recommendation.js";
import { RewardReceipts } from "./users/rewardReceipts.js";
import { UserProfiles } from "./users/userProfiles.js";

/** What an engine is made of, once all of it is open. */
export interface OpenedParts {
  readonly active: ActiveBundle;
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

  protected readonly active: ActiveBundle;
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
  #closed: Promise<void> | null = null;

  /** For subclasses and `open`. */
  protected constructor({ active, outbox, catalog, state, clock, entropy }: OpenedParts) {
    this.clock = clock;
    this.entropy = entropy;
    this.state = state;
    this.outbox = outbox;
    this.catalog = catalog;
    this.active = active;
    const { windowS, shareContext, privacy } = state;
    const records = state.state !== null;
    const options = { windowS, shareContext, privacy, entropy, records };
    this.profiles = new UserProfiles(outbox, options);
    this.recommender = new Recommender(entropy);
    this.receipts = new RewardReceipts(outbox, entropy);
    this.uploader = this.#startUploader();
    const stops = [
      this.uploader === null ? () => {} : watchPage(this.uploader),
      onPageEnd(() => this.active.endTrial()),
    ];
    this.#unwatchPage = () => stops.forEach((stop) => stop());
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

  /** The active scorer. Read it once a call: a swap or a change of the catalog replaces it. */
  protected get scorer(): Scorer {
    return this.active.scorer;
  }

  /**
   * Closes reward windows that have ended, and takes what other tabs have changed; returns the wall
   * clock in ms, read once a call.
   */
  protected async beginCall(): Promise<number> {
    const nowMs = this.clock.wallMs();
    await this.profiles.begin(nowMs);
    if (this.catalog.isStale) {
      await this.active.change((scorer) => this.catalog.restored(scorer));
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
    await this.active.close();
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
  const kernels = Promise.resolve(options.kernels ?? loadKernels());
  const { encoder = onnxRuntimeWeb, verify = false } = options;
  const scorers = new ScorerFactory(kernels, encoder, verify);
  const active = await ActiveBundle.open(source, scorers, state.releases.store);
  const outbox = await openOutbox(state.state, outboxOptions);
  const catalog = new CatalogStore(outbox);
  await active.restoreWith((scorer) => catalog.restored(scorer));
  return { active, outbox, catalog, state, clock, entropy };
}
