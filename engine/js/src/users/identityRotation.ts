/**
 * When to rotate the install id and the pseudonyms: by age, or at the collector's request.
 *
 * The age is counted by the wall clock and survives restarts. An unset clock (before 2025) counts
 * nothing.
 */

import { CREATED_AT } from "../outbox/eventStore.js";
import type { Outbox } from "../outbox/outbox.js";
import { OLDEST_MS } from "../runtime/clock.js";
import { DAY_MS } from "./explorationBudget.js";

/** The age of one identity of an install, and whether its rotation is due. */
export class IdentityRotation {
  readonly #outbox: Outbox;
  #isRequested = false;
  #isRecorded = false;

  constructor(outbox: Outbox) {
    this.#outbox = outbox;
  }

  /** Makes the rotation due, whatever the age of the identity. */
  request(): void {
    this.#isRequested = true;
  }

  /** Returns whether the identity is `days` old, or its rotation was requested. */
  isDue(days: number | null, nowMs: number): boolean {
    return this.#isRequested || (days !== null && this.#ageMs(nowMs) >= days * DAY_MS);
  }

  /** Stores when this identity was created, unless that is stored already. */
  recordCreation(nowMs: number): void {
    if (!this.#isRecorded) {
      this.#ageMs(nowMs);
    }
  }

  /**
   * Returns the age in ms by the wall clock, 0 while that is not set.
   *
   * It starts again from 0 where an earlier clock was ahead of this one: otherwise a device whose
   * clock was once years ahead would never rotate.
   */
  #ageMs(nowMs: number): number {
    if (nowMs < OLDEST_MS) {
      return 0;
    }
    this.#isRecorded = true;
    const createdMs = Number(this.#outbox.state(CREATED_AT));
    if (createdMs > 0 && createdMs <= nowMs) {
      return nowMs - createdMs;
    }
    this.#outbox.put(() => ({ events: [], states: new Map([[CREATED_AT, String(nowMs)]]) }));
    return 0;
  }
}
