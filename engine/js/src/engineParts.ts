/** The parts of an engine: how they are opened, joined and closed. */

import { Bundle } from "./bundle/bundle.js";
import type { BundleSource } from "./bundle/source.js";
import type { KernelSet } from "./kernels/kernelSet.js";
import { loadKernels } from "./kernels/loadKernels.js";
import { checkGolden } from "./ranking/goldenCheck.js";
import { onnxRuntimeWeb } from "./ranking/onnxRuntimeWeb.js";
import { Scorer } from "./ranking/scorer.js";
import type { EncoderRuntime } from "./ranking/textEncoder.js";
import { type Clock, type Entropy, SYSTEM_CLOCK, systemEntropy } from "./runtime/clock.js";
import { MemoryProfiles } from "./users/memoryProfiles.js";
import { Recommender } from "./users/recommendation.js";
import type { Profiles } from "./users/types.js";

/** How an engine computes, stores and explores. */
export interface EngineOptions {
  /** What searches and draws, such as of `loadKernels`, which is called unless one is given. */
  readonly kernels?: KernelSet;

  /** Loads the encoder of texts; onnxruntime-web unless given. */
  readonly encoder?: EncoderRuntime;

  /**
   * Read all files of the bundle when opening it, check all values, and compute the golden
   * results. Without it a file is checked against its hash when it is read.
   */
  readonly verify?: boolean;

  /** Wall and monotonic time; the system's clocks unless given. */
  readonly clock?: Clock;

  /** Source of random bytes for ids, secrets and exploration; the system's unless given. */
  readonly entropy?: Entropy;
}

/** What `Engine` is made of; its public methods are there. */
export class EngineParts {
  /** Set it to false to stop exploring from the next slate on. */
  exploring = true;

  protected readonly clock: Clock;
  protected readonly entropy: Entropy;
  protected readonly profiles: Profiles;
  protected readonly recommender: Recommender;
  #scorer: Scorer;
  #lastChange: Promise<unknown> = Promise.resolve();

  /** For subclasses and `open`. */
  protected constructor(scorer: Scorer, options: EngineOptions) {
    this.clock = options.clock ?? SYSTEM_CLOCK;
    this.entropy = options.entropy ?? systemEntropy;
    this.profiles = new MemoryProfiles(this.entropy);
    this.recommender = new Recommender(this.entropy);
    this.#scorer = scorer;
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

  /** Returns the wall clock in ms since 1970, read once a call. */
  protected beginCall(): number {
    return this.clock.wallMs();
  }
}

/** Returns the scorer of the bundle of a source. */
export async function openScorer(source: BundleSource, options: EngineOptions): Promise<Scorer> {
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
