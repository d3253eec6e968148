/** Brings the signed metadata of a repository up to date, and stores what was verified of it. */

import { UpdateError } from "../errors.js";
import type { BundleStore } from "./bundleStore.js";
import { notDownloaded } from "./faults.js";
import { parseMetadata, type Role } from "./metadata.js";
import type { ReleaseSource } from "./releaseSource.js";
import { TrustedMetadata } from "./trustedMetadata.js";

const MAX_ROOTS = 256;

/** Bytes of each role's metadata where no length was signed. */
const MAX_BYTES: Readonly<Record<Role, number>> = {
  root: 512_000,
  timestamp: 16_384,
  snapshot: 2_000_000,
  targets: 5_000_000,
};

/** What an update reads from, and where it keeps what it has verified. */
export interface RefreshParts {
  readonly source: ReleaseSource;
  readonly store: BundleStore;

  /** The root.json that the app ships. */
  readonly root: Uint8Array;

  /** The time by which metadata expires, in ms since 1970. */
  readonly nowMs: number;
  readonly signal: AbortSignal;
}

/**
 * Returns the newest metadata of a repository.
 *
 * Throws `UpdateError` where it cannot be downloaded, is not signed by the keys that the app's root
 * leads to, has expired, or is older than what this device has seen.
 */
export async function refresh(parts: RefreshParts): Promise<TrustedMetadata> {
  checkRoot(parts.root);
  const trusted = await TrustedMetadata.of(parts.root, parts.nowMs);
  await refreshRoot(trusted, parts);
  await refreshTimestamp(trusted, parts);

  const prefix = (version: number): string =>
    trusted.root.consistent_snapshot ? `${version}.` : "";
  await refreshRole("snapshot", parts, {
    load: (data, isStored) => trusted.updateSnapshot(data, isStored),
    remote: () => [prefix(trusted.snapshotMeta.version), trusted.snapshotMeta.length],
  });
  await refreshRole("targets", parts, {
    load: (data) => trusted.updateTargets(data),
    remote: () => [prefix(trusted.targetsMeta.version), trusted.targetsMeta.length],
  });
  return trusted;
}

function checkRoot(root: Uint8Array): void {
  try {
    parseMetadata("root", root);
  } catch (error) {
    throw new UpdateError(
      "root: expected the repository's root.json, which `sanderling release init` made, found" +
        ` ${root.length} bytes that are something else: ${(error as Error).message}`,
    );
  }
}

/** Follows the roots from the app's own to the newest; those seen before need no server. */
async function refreshRoot(trusted: TrustedMetadata, parts: RefreshParts): Promise<void> {
  for (let i = 0; i < MAX_ROOTS; i++) {
    const file = `${trusted.root.version + 1}.root.json`;
    const stored = await parts.store.read(keyOf(file));
    if (stored !== null && (await isAccepted(() => trusted.updateRoot(stored)))) {
      continue;
    }
    const data = await download(file, MAX_BYTES.root, parts);
    if (data === null) {
      return;
    }
    await trusted.updateRoot(data);
    await parts.store.write(keyOf(file), data);
  }
}

async function refreshTimestamp(trusted: TrustedMetadata, parts: RefreshParts): Promise<void> {
  const file = "timestamp.json";
  const stored = await parts.store.read(keyOf(file));
  if (stored !== null) {
    await isAccepted(() => trusted.updateTimestamp(stored));
  }
  const data = await downloaded(file, MAX_BYTES.timestamp, parts);
  if (await trusted.updateTimestamp(data)) {
    await parts.store.write(keyOf(file), data);
  }
}

interface RoleParts {
  readonly load: (data: Uint8Array, isStored: boolean) => Promise<void>;

  /** Returns what the server puts in front of the file's name, and the signed length. */
  readonly remote: () => readonly [prefix: string, length: number | undefined];
}

/** Takes a role from the store where that is the newest, else from the server. */
async function refreshRole(
  role: "snapshot" | "targets",
  parts: RefreshParts,
  { load, remote }: RoleParts,
): Promise<void> {
  const file = `${role}.json`;
  const stored = await parts.store.read(keyOf(file));
  if (stored !== null && (await isAccepted(() => load(stored, true)))) {
    return;
  }
  const [prefix, length] = remote();
  const data = await downloaded(`${prefix}${file}`, length ?? MAX_BYTES[role], parts);
  await load(data, false);
  await parts.store.write(keyOf(file), data);
}

/** Returns whether stored metadata is the newest; what is wrong with it does not matter. */
async function isAccepted(load: () => Promise<unknown>): Promise<boolean> {
  try {
    await load();
    return true;
  } catch (error) {
    if (error instanceof UpdateError) {
      return false;
    }
    throw error;
  }
}

function keyOf(file: string): string {
  return `metadata/${file}`;
}

async function downloaded(file: string, limit: number, parts: RefreshParts): Promise<Uint8Array> {
  const data = await download(file, limit, parts);
  if (data === null) {
    throw notDownloaded(`${parts.source.name}/metadata/${file}`, "the server has no such file");
  }
  return data;
}

function download(file: string, limit: number, parts: RefreshParts): Promise<Uint8Array | null> {
  return parts.source.read(`metadata/${file}`, limit, parts.signal);
}
