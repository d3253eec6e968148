/** Reads the files of a bundle, and compares them with what its manifest says of them. */

import { BundleError } from "../errors.js";
import { fileHash } from "../runtime/sha256.js";
import { type Manifest, MANIFEST_FILE, parseManifest } from "./manifest.js";
import type { BundleSource } from "./source.js";

/** Returns the manifest of a source; throws `BundleError` where there is none, or a wrong one. */
export async function readManifest(source: BundleSource, isFresh: boolean): Promise<Manifest> {
  const data = await source.read(MANIFEST_FILE, isFresh);
  if (data === null) {
    throw new BundleError(
      `expected a bundle with a ${MANIFEST_FILE} in ${source.name},` +
        " found no regular file of that name",
    );
  }
  return parseManifest(data);
}

/** Checks names and lengths of the files where the source can list them. */
export async function checkListed(source: BundleSource, manifest: Manifest): Promise<void> {
  const found = await source.list?.();
  if (found === undefined) {
    return;
  }
  for (const name of manifest.files.keys()) {
    checkLength(source, manifest, name, found.get(name) ?? -1);
  }
  const extra = [...found.keys()].filter(
    (name) => name !== MANIFEST_FILE && !manifest.files.has(name),
  );
  if (extra.length > 0) {
    throw new BundleError(
      `${source.name}: expected only the files of the manifest, found also ${extra.sort()}`,
    );
  }
}

function checkLength(
  source: BundleSource,
  manifest: Manifest,
  name: string,
  length: number,
): void {
  const expected = manifest.files.get(name)!.length;
  if (length < 0) {
    throw new BundleError(`${name}: expected a regular file in ${source.name}`);
  }
  if (length !== expected) {
    throw new BundleError(`${name}: expected ${expected} bytes, found ${length}`);
  }
  if (expected === 0) {
    throw new BundleError(`${name}: expected a file with content, found an empty one`);
  }
}

/** Returns a file of the manifest; throws `BundleError` where it is not what that says. */
export async function readFile(
  source: BundleSource,
  manifest: Manifest,
  name: string,
  isFresh: boolean,
): Promise<Uint8Array> {
  const data = await source.read(name, isFresh);
  checkLength(source, manifest, name, data?.length ?? -1);
  const expected = manifest.files.get(name)!.sha256;
  const actual = await fileHash(data!);
  if (actual !== expected) {
    throw new BundleError(
      `${name}: expected the SHA-256 ${expected}, found ${actual}: the file was altered`,
    );
  }
  return data!;
}
