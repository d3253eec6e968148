/** The files of an installed bundle, stored by their hashes: releases share what is equal. */

import { MANIFEST_FILE, type Manifest, parseManifest } from "../bundle/manifest.js";
import type { BundleSource } from "../bundle/source.js";
import type { BundleStore } from "./bundleStore.js";

/** Returns the key of the file with a SHA-256. */
export function fileKey(sha256: string): string {
  return `files/${sha256}`;
}

/** A bundle of which a store has the files. */
export class InstalledSource implements BundleSource {
  readonly name: string;
  readonly #store: BundleStore;
  readonly #manifest: Uint8Array;

  constructor(store: BundleStore, release: number, manifest: Uint8Array) {
    this.name = `release ${release} in ${store.name}`;
    this.#store = store;
    this.#manifest = manifest;
  }

  /** The manifest; throws `BundleError` where it is damaged. */
  get manifest(): Manifest {
    return parseManifest(this.#manifest);
  }

  async read(name: string): Promise<Uint8Array | null> {
    if (name === MANIFEST_FILE) {
      return this.#manifest;
    }
    const entry = this.manifest.files.get(name);
    return entry === undefined ? null : this.#store.read(fileKey(entry.sha256));
  }
}
