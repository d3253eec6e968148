/**
 * The boot of an identity: a random id, and a monotonic clock that starts with it.
 *
 * Both change with the identity, so that events before and after a rotation cannot be linked by
 * them.
 */

import type { Clock, Entropy } from "../runtime/clock.js";
import { hex } from "../runtime/text.js";
import type { ClockReading } from "./wire.js";

/** A boot that begins now; `read` gives the clock of an event. */
export class BootClock {
  readonly #id: string;
  readonly #clock: Clock;
  readonly #startMs: number;

  constructor(clock: Clock, entropy: Entropy) {
    this.#id = hex(entropy(16));
    this.#clock = clock;
    this.#startMs = clock.monoMs();
  }

  /** Returns the wall clock, the milliseconds since this boot began, and its id. */
  read(): ClockReading {
    // A clock that the app passes in may break its promise; the collector would reject the event.
    const mono = Math.max(0, this.#clock.monoMs() - this.#startMs);
    return { wall: this.#clock.wallMs(), mono, boot: this.#id };
  }
}
