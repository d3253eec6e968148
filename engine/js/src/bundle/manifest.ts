/** The manifest of a bundle: which files it has, what they are, and how the device uses them. */

import { decodeJson } from "./decodeJson.js";
import type { Exploration, FileEntry, Manifest } from "./manifestTypes.js";

export type * from "./manifestTypes.js";

export const MANIFEST_FILE = "manifest.json";
export const MAX_ID = 512;
export const MAX_POOL = 10_000;

/** Returns the manifest in these bytes; throws `BundleError` that names the first wrong field. */
export function parseManifest(data: Uint8Array): Manifest {
  const read = decodeJson(MANIFEST_FILE, data) as unknown as Partial<Manifest>;
  const exploration = {
    scheme: "sequential",
    epsilon: 0.1,
    pool: 50,
    temperature: 1,
    guarded: 0,
    daily: null,
    newcomers: 0.3,
    ...(read.exploration as Partial<Exploration>),
  } as Exploration;
  return {
    prefixes: { item: "", query: "" },
    experiment: null,
    rules: null,
    reports: {},
    ...read,
    exploration,
    files: new Map(Object.entries(read.files as unknown as Record<string, FileEntry>)),
  } as Manifest;
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
