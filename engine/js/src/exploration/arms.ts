/** The arms of an experiment: which one an install is in follows from its id alone. */

import type { Arm, Experiment, Exploration, Manifest } from "../bundle/manifest.js";
import { sha256 } from "../runtime/sha256.js";

/**
 * Returns the place of an install's arm among those with these shares; null for the rest.
 *
 * u = the first 8 bytes of SHA-256(`experiment/install`) as a number in [0, 1) falls into the
 * shares one after the other, so that the lab can tell every install's arm, too.
 */
export function armOf(
  experiment: string,
  shares: readonly number[],
  install: string,
): number | null {
  const digest = sha256(new TextEncoder().encode(`${experiment}/${install}`));
  const first = new DataView(digest.buffer).getBigUint64(0);
  let left = Number(first) / 2 ** 64;
  for (const [place, share] of shares.entries()) {
    left -= share;
    if (left < 0.0) {
      return place;
    }
  }
  return null;
}

/** Returns the arm of an install; null without an experiment, and for the rest. */
export function assignedArm(experiment: Experiment | null, install: string): Arm | null {
  if (experiment === null) {
    return null;
  }
  const shares = experiment.arms.map((arm) => arm.share);
  const place = armOf(experiment.name, shares, install);
  return place === null ? null : experiment.arms[place]!;
}

/** Returns how the installs of an arm explore: as the bundle says unless the arm says else. */
export function planOf(manifest: Manifest, arm: Arm | null): Exploration {
  return arm?.exploration ?? manifest.exploration;
}
