/** Which release of a repository is the one to install on this device. */

import { UpdateError } from "../errors.js";
import { checked, field, int, struct, text } from "../runtime/structs.js";
import { sha256 } from "../runtime/sha256.js";
import { utf8 } from "../runtime/text.js";
import type { TargetFile } from "./metadata.js";
import { refusal, type SlotState } from "./slots.js";

/**
 * An attacker with the online keys could publish the highest number possible; devices that confirm
 * it would reject every honest release after it.
 */
const MAX_RELEASE_STEP = 10_000;

/** The custom fields of a release's signed manifest target. */
interface TargetDescription {
  readonly app: string;
  readonly release: number;

  /** Percentage of the installs that get the release. */
  readonly rollout: number;
}

const DESCRIPTION = struct("TargetDescription", { lenient: true }, [
  field("app", text()),
  field("release", int({ min: 1, max: 2 ** 53 - 1 })),
  field("rollout", int({ min: 0, max: 100 })),
]);

/** The device that asks. */
export interface Device {
  /** Name of the app; releases of other apps are ignored. */
  readonly app: string;

  /** The install's id, which partial rollouts go by. */
  readonly install: string;

  /** Only releases above this one are installed. */
  readonly current: number;
}

/**
 * Returns the highest release that is for this app and install and may run here, or null.
 *
 * Throws `UpdateError` for a target without a description, and for a number far above the present.
 */
export function newestRelease(
  targets: ReadonlyMap<string, TargetFile>,
  device: Device,
  state: SlotState,
): number | null {
  const releases = [...targets]
    .filter(([path]) => path.endsWith("/manifest.json"))
    .map(([path, target]) => descriptionOf(path, target))
    .filter(({ app, release, rollout }) => {
      const isNewer = app === device.app && release > device.current;
      return isNewer && inRollout(device.install, release, rollout) && !refusal(state, release);
    })
    .map(({ release }) => release);
  const newest = releases.length === 0 ? null : Math.max(...releases);
  const highest = Math.max(device.current, state.highest);
  if (newest !== null && newest > highest + MAX_RELEASE_STEP) {
    throw new UpdateError(
      `release ${newest}: expected at most ${MAX_RELEASE_STEP} above ${highest}, the highest` +
        " release so far: a number far too high would lock out all later releases",
    );
  }
  return newest;
}

function descriptionOf(path: string, target: TargetFile): TargetDescription {
  let description: TargetDescription;
  try {
    description = checked(DESCRIPTION, target.custom ?? {}) as TargetDescription;
  } catch (error) {
    throw new UpdateError(
      `${path}: expected the custom fields app, release and rollout, found:` +
        ` ${(error as Error).message}; publish the release with \`sanderling release publish\``,
    );
  }
  const expected = `releases/${description.release}/manifest.json`;
  if (path !== expected) {
    throw new UpdateError(
      `${path}: expected ${expected}, the path of the release that it describes`,
    );
  }
  return description;
}

/**
 * Returns whether an install takes part in a rollout.
 *
 * An install that takes part at one percentage takes part at every higher one.
 */
export function inRollout(install: string, release: number, percent: number): boolean {
  const digest = sha256(utf8(`${install}/${release}`));
  const bytes = digest.subarray(0, 8);
  return bytes.reduce((rest, byte) => (rest * 256 + byte) % 100, 0) < percent;
}
