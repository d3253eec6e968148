/** Opens bundles for an engine, and tries those of releases before they are installed. */

import { Bundle } from "../bundle/bundle.js";
import type { BundleSource } from "../bundle/source.js";
import { BundleError, UpdateError } from "../errors.js";
import type { KernelSet } from "../kernels/kernelSet.js";
import { checkGolden } from "../ranking/goldenCheck.js";
import { MissingPackageError } from "../ranking/missingPackage.js";
import { Scorer } from "../ranking/scorer.js";
import type { EncoderRuntime } from "../ranking/textEncoder.js";

/** What all scorers of an engine compute with. */
export class ScorerFactory {
  constructor(
    private readonly kernels: Promise<KernelSet>,
    private readonly encoder: EncoderRuntime,
    private readonly verify: boolean,
  ) {
    kernels.catch(() => {}); // a bundle that does not open may be the first error
  }

  /** Returns the scorer of an opened bundle. */
  async of(bundle: Bundle): Promise<Scorer> {
    return Scorer.of(bundle, await this.kernels, this.encoder);
  }

  /** Returns the scorer of a bundle; throws `BundleError` where it does not open. */
  async open(source: BundleSource): Promise<Scorer> {
    const scorer = await this.of(await Bundle.open(source, this.verify));
    if (this.verify) {
      await checkGolden(scorer);
    }
    return scorer;
  }

  /**
   * Returns the scorer of a bundle that passes its golden vectors.
   *
   * Throws `BundleError` for one that does not, `UpdateError` where no encoder loads here, that of
   * the active bundle neither: then nothing can be said about this one.
   */
  async tried(bundle: Bundle, active: Scorer): Promise<Scorer> {
    const kernels = await this.kernels;
    let didLoad = true;
    const watched: EncoderRuntime = async (files) => {
      try {
        return await this.encoder(files);
      } catch (error) {
        didLoad = error instanceof MissingPackageError; // texts are then left out
        throw error;
      }
    };
    try {
      const scorer = Scorer.of(bundle, kernels, watched);
      await checkGolden(scorer);
      return scorer;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      if (!didLoad && !(await loads(active))) {
        throw new UpdateError(
          `release ${bundle.manifest.release} could not be tried, as no encoder loads: ${message}`,
        );
      }
      throw new BundleError(message);
    }
  }
}

async function loads(scorer: Scorer): Promise<boolean> {
  try {
    await scorer.encoder.load();
    return true;
  } catch {
    return false;
  }
}
