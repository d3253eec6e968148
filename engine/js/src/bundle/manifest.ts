/** The manifest of a bundle: which files it has, what they are, and how the device uses them. */

import { BundleError, EventError } from "../errors.js";
import { checked } from "../runtime/structs.js";
import { decodeJson, pythonList } from "./decodeJson.js";
import {
  type Experiment,
  FILES,
  type Manifest,
  MANIFEST as MANIFEST_FILE,
  MANIFEST_SPEC,
  MAX_ID,
  MAX_MANIFEST_BYTES,
  MAX_POOL,
  OPTIONAL_FILES,
  REST,
  ROUNDING,
} from "./manifestTypes.js";

export type * from "./manifestTypes.js";
export { MANIFEST_FILE, MAX_ID, MAX_POOL };

/** Returns the manifest in these bytes; throws `BundleError` that names the first wrong field. */
export function parseManifest(data: Uint8Array): Manifest {
  if (data.length > MAX_MANIFEST_BYTES) {
    throw new BundleError(
      `${MANIFEST_FILE}: expected at most ${MAX_MANIFEST_BYTES} bytes, found ${data.length}`,
    );
  }
  const read = decodeJson(MANIFEST_FILE, data);
  const manifest = checkedManifest(read);
  checkExperiment(manifest.experiment);
  checkFiles(manifest);
  return manifest;
}

function checkedManifest(read: unknown): Manifest {
  try {
    return checked(MANIFEST_SPEC, read) as Manifest;
  } catch (error) {
    throw error instanceof EventError
      ? new BundleError(`${MANIFEST_FILE}: ${error.message}`)
      : error;
  }
}

function checkExperiment(experiment: Experiment | null): void {
  const arms = experiment?.arms ?? [];
  const names = arms.map((arm) => arm.name);
  if (new Set(names).size !== names.length || names.includes(REST)) {
    throw new BundleError(
      `${MANIFEST_FILE}: arms: expected distinct names other than '${REST}',` +
        ` found ${pythonList(names)} - at \`$.experiment\``,
    );
  }
  const sum = arms.reduce((total, arm) => total + arm.share, 0);
  if (sum > 1 + ROUNDING) {
    throw new BundleError(
      `${MANIFEST_FILE}: arms: expected shares of 1 together,` +
        ` found ${Number(sum.toPrecision(6))} - at \`$.experiment\``,
    );
  }
}

function checkFiles({ files }: Manifest): void {
  const optional: readonly string[] = OPTIONAL_FILES;
  const required: readonly string[] = FILES;
  const extra = [...files.keys()].filter((name) => ![...optional, ...required].includes(name));
  const missing = required.filter((name) => !files.has(name));
  if (extra.length + missing.length > 0) {
    throw new BundleError(
      `${MANIFEST_FILE}: expected exactly the files ${required.join(", ")};` +
        ` missing or not allowed: ${pythonList([...extra, ...missing].sort())}`,
    );
  }
}

/** Returns why an engine of this version may not open the bundle, or null. */
export function engineVersionFault(manifest: Manifest, version: string): string | null {
  const needed = manifest.min_engine.split(".").map(Number);
  const actual = version.split(".").map(Number);
  const differing = needed.findIndex((part, i) => part !== actual[i]);
  if (differing < 0 || needed[differing]! < actual[differing]!) {
    return null;
  }
  return (
    `${MANIFEST_FILE}: min_engine: expected an engine of at least ${manifest.min_engine},` +
    ` found ${version}: update the app`
  );
}
