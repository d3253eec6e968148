/** How long to wait between attempts to upload. */

/** The longest random delay before the first attempt of a process. */
const MAX_START_DELAY_S = 30;

/** The longest delay without a network: uploading resumes within a minute of its return. */
const OFFLINE_DELAY_S = 60;

/** The ceiling of the delay after a first failure. */
const FIRST_BACKOFF_S = 1;

/** The highest ceiling: after an outage of an hour the devices return spread over the next hour. */
const MAX_BACKOFF_S = 3000;

/**
 * Exponential backoff with full jitter.
 *
 * The delay is drawn uniformly from 0 to a ceiling that doubles with every failure. The draw comes
 * after the cap: capping the draws instead would bring many devices back at the same moment.
 */
export class Backoff {
  readonly #random: () => number;
  #failures = 0;

  /** `random` returns a number in [0, 1). */
  constructor(random: () => number) {
    this.#random = random;
  }

  /**
   * Returns how long to wait before the first attempt of a process, in seconds.
   *
   * Devices that start together, after a power cut for example, must not all call at once. Pages do
   * not start together, and may not live for so long.
   */
  startDelayS(isPage: boolean): number {
    return isPage ? 0 : this.#random() * MAX_START_DELAY_S;
  }

  /** Counts a failure; returns how long to wait in seconds, `atLeastS` and a random share. */
  failureDelayS(atLeastS = 0): number {
    const ceilingS = Math.min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** this.#failures);
    this.#failures += 1;
    return atLeastS + this.#random() * ceilingS;
  }

  /** Returns how long to wait without a network, in seconds, which counts as no failure. */
  offlineDelayS(): number {
    return (0.5 + this.#random() / 2) * OFFLINE_DELAY_S;
  }

  /** Forgets the failures, after a success. */
  reset(): void {
    this.#failures = 0;
  }
}
