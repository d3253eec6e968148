/** What an app calls about releases: update to the newest one, and roll back. */

import { checkTimeout } from "./arguments.js";
import { ReasonCalls } from "./engineReasons.js";
import { UpdateError } from "./errors.js";

/** Seconds that `update` may take unless its caller chooses. */
const UPDATE_TIMEOUT_S = 900;

/** The calls of `Engine` that change which release is active. */
export class ReleaseCalls extends ReasonCalls {
  /**
   * Fetches, verifies and swaps in the newest release; returns its number, or null: there is none.
   *
   * The swap happens between two requests. If the new release fails before it has decided its first
   * slate, in a search too, the engine rolls back. Throws `UpdateError` when fetching or verifying
   * failed, or another engine, such as one in another tab, updates; `StorageError` when there is no
   * room for the release. The previous release stays active.
   */
  async update(timeoutS = UPDATE_TIMEOUT_S): Promise<number | null> {
    checkTimeout(timeoutS);
    const { source, root } = this.state.releases;
    if (source === null) {
      throw new UpdateError("expected an engine opened with `state`, `releases` and `root`");
    }
    const { installNewest } = await import("./releases/install.js"); // not needed to show a page
    return this.active.update((slots, active) =>
      withinTime(timeoutS, (signal) => {
        const { app, release: current } = active.bundle.manifest;
        const device = { app, install: this.outbox.identity.install, current };
        const { scorers } = this.active;
        const metadata = { source, store: slots.store, root, nowMs: this.clock.wallMs(), signal };
        return installNewest({ ...metadata, slots, device, active, scorers });
      }),
    );
  }

  /**
   * Blocks the active release for good and activates the previous one; returns its number.
   *
   * Throws `StorageError` where that cannot be stored: the previous release is then active only
   * until this engine is closed. Throws `BundleError` where the app's own bundle would be next and
   * does not open, as off line; then nothing was changed.
   */
  async rollback(): Promise<number> {
    await this.active.rollBack("requested by the app");
    return this.release;
  }
}

/** Returns what an update returns; throws `UpdateError` when it takes longer than it may. */
async function withinTime<T>(
  timeoutS: number,
  update: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const { signal } = controller;
  const late = new Promise<never>((_, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason));
  });
  const reason = new UpdateError(
    `the update took longer than ${timeoutS} s; the active bundle stays, and can be updated later`,
  );
  const timer = setTimeout(() => controller.abort(reason), timeoutS * 1000);
  try {
    return await Promise.race([update(signal), late]);
  } finally {
    clearTimeout(timer);
  }
}
