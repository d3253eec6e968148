/** Brings a release's files to this device, each to its signed length and hash, and tries them. */

import { Bundle } from "../bundle/bundle.js";
import {
  engineVersionFault,
  type Manifest,
  MANIFEST_FILE,
  parseManifest,
} from "../bundle/manifest.js";
import { MAX_MANIFEST_BYTES } from "../bundle/manifestTypes.js";
import { BundleError, UpdateError } from "../errors.js";
import type { Scorer } from "../ranking/scorer.js";
import { VERSION } from "../version.js";
import type { BundleStore } from "./bundleStore.js";
import { notDownloaded } from "./faults.js";
import { fileKey, InstalledSource } from "./installedSource.js";
import type { TargetFile } from "./metadata.js";
import { refresh, type RefreshParts } from "./refresh.js";
import { type Device, newestRelease } from "./release.js";
import type { ReleaseSource } from "./releaseSource.js";
import type { ScorerFactory } from "./scorerFactory.js";
import type { Slots } from "./slots.js";
import { checkContent, type TrustedMetadata } from "./trustedMetadata.js";

const SPARE_BYTES = 16 * 2 ** 20; // what an update leaves free

/** What an update needs beside the metadata. */
export interface InstallParts extends RefreshParts {
  readonly slots: Slots;
  readonly device: Device;

  /** Whose files are copied where the new release has the same. */
  readonly active: Scorer;

  /** Opens the bundle of a release for its trial. */
  readonly scorers: ScorerFactory;
}

/** A complete, signed release that this device can never run. */
class RefusedError extends UpdateError {}

/**
 * Installs the newest release that fits; returns its scorer, or null when there is none.
 *
 * A release whose content is at fault is blocked. What was downloaded before an update ended early
 * is not downloaded again. Throws `UpdateError` for everything that goes wrong on the network or
 * with a release, `StorageError` where the store fails.
 */
export async function installNewest(parts: InstallParts): Promise<Scorer | null> {
  const { slots, device } = parts;
  const state = await slots.state(); // damaged? Then a release that was blocked might come back
  const trusted = await refresh(parts);
  const release = newestRelease(trusted.targets.targets, device, state);
  if (release === null) {
    return null;
  }
  try {
    return await install(new Download(trusted, parts), release, parts);
  } catch (error) {
    if (error instanceof RefusedError) {
      await slots.block(release, error.message);
    }
    throw error;
  }
}

/** Stores and tries the files of a release. */
async function install(
  download: Download,
  release: number,
  { store, slots, device, active, scorers, signal }: InstallParts,
): Promise<Scorer> {
  const data = await downloadManifest(download, release);
  const manifest = parsedManifest(data, release, device.app);
  const targets = [...manifest.files.keys()].map((name) => [
    name,
    signedTarget(download, release, name, manifest),
  ] as const);

  const stored = new Set(await store.keys());
  const missing = targets.filter(([name]) => !stored.has(keyIn(manifest, name)));
  await checkSpace(store, release, missing.map(([, target]) => target.length));
  for (const [name, target] of targets) {
    signal.throwIfAborted();
    const key = keyIn(manifest, name);
    if (stored.has(key) && (await isWhole(store, key, name, target))) {
      continue;
    }
    const copy = await copyOf(active.bundle, manifest.files.get(name)!.sha256);
    await store.write(key, copy ?? (await download.target(pathOf(release, name), target)));
  }
  const source = new InstalledSource(store, release, data);
  let scorer: Scorer;
  try {
    scorer = await scorers.tried(await Bundle.open(source, true), active);
  } catch (error) {
    throw error instanceof BundleError ? refused(release, error.message) : error;
  }
  signal.throwIfAborted();
  await slots.install(release, data);
  return scorer;
}

/** Downloads the targets of one repository. */
class Download {
  readonly #source: ReleaseSource;
  readonly #signal: AbortSignal;

  constructor(
    readonly trusted: TrustedMetadata,
    { source, signal }: RefreshParts,
  ) {
    this.#source = source;
    this.#signal = signal;
  }

  /** Returns a target as it was signed; throws `UpdateError` for any other content. */
  async target(path: string, target: TargetFile): Promise<Uint8Array> {
    const split = path.lastIndexOf("/") + 1;
    const hash = this.trusted.root.consistent_snapshot ? `${target.hashes.get("sha256")}.` : "";
    const file = `targets/${path.slice(0, split)}${hash}${path.slice(split)}`;
    const data = await this.#source.read(file, target.length, this.#signal);
    if (data === null) {
      throw notDownloaded(`${this.#source.name}/${file}`, "the server has no such file");
    }
    await checkContent(path, data, target);
    return data;
  }
}

function pathOf(release: number, name: string): string {
  return `releases/${release}/${name}`;
}

function keyIn(manifest: Manifest, name: string): string {
  return fileKey(manifest.files.get(name)!.sha256);
}

async function downloadManifest(download: Download, release: number): Promise<Uint8Array> {
  const path = pathOf(release, MANIFEST_FILE);
  const target = download.trusted.targets.targets.get(path)!;
  if (target.length > MAX_MANIFEST_BYTES) {
    throw new UpdateError(
      `release ${release}: expected a manifest of at most ${MAX_MANIFEST_BYTES} bytes, found one` +
        ` of ${target.length} bytes`,
    );
  }
  return download.target(path, target);
}

function parsedManifest(data: Uint8Array, release: number, app: string): Manifest {
  let manifest: Manifest;
  try {
    manifest = parseManifest(data);
  } catch (error) {
    throw error instanceof BundleError ? refused(release, error.message) : error;
  }
  if (manifest.app !== app || manifest.release !== release) {
    throw refused(
      release,
      `${MANIFEST_FILE}: expected ${app} ${release}, found ${manifest.app} ${manifest.release}`,
    );
  }
  // Not a block: the app may be updated with a newer engine.
  const fault = engineVersionFault(manifest, VERSION);
  if (fault !== null) {
    throw new UpdateError(fault);
  }
  return manifest;
}

/** Returns the signed target of one file, which must agree with the manifest. */
function signedTarget(
  download: Download,
  release: number,
  name: string,
  manifest: Manifest,
): TargetFile {
  const target = download.trusted.targets.targets.get(pathOf(release, name));
  const expected = manifest.files.get(name)!;
  const sha256 = target?.hashes.get("sha256");
  if (target === undefined || target.length !== expected.length || sha256 !== expected.sha256) {
    const found = target === undefined ? "no target" : `${target.length} bytes, ${sha256}`;
    throw refused(
      release,
      `${name}: expected a target with the length and SHA-256 of the manifest, found ${found}`,
    );
  }
  return target;
}

function refused(release: number, reason: string): RefusedError {
  return new RefusedError(`release ${release} is refused: ${reason}`);
}

async function checkSpace(
  store: BundleStore,
  release: number,
  lengths: readonly number[],
): Promise<void> {
  const needed = lengths.reduce((sum, length) => sum + length, SPARE_BYTES);
  const free = await store.freeBytes();
  if (free !== null && needed > free) {
    throw new UpdateError(
      `${store.name}: release ${release} needs ${needed} bytes, found ${free} free; free space` +
        " and update again",
    );
  }
}

/** Returns whether a stored file is what its key says: the store may have been damaged. */
async function isWhole(
  store: BundleStore,
  key: string,
  name: string,
  target: TargetFile,
): Promise<boolean> {
  try {
    await checkContent(name, (await store.read(key)) ?? new Uint8Array(0), target);
    return true;
  } catch (error) {
    if (error instanceof UpdateError) {
      return false;
    }
    throw error;
  }
}

/** Returns the file of the active bundle that has a hash; null where it has none that is whole. */
async function copyOf(active: Bundle, sha256: string): Promise<Uint8Array | null> {
  for (const [name, file] of active.manifest.files) {
    if (file.sha256 === sha256) {
      return active.read(name).catch(() => null);
    }
  }
  return null;
}
