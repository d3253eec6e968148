/** The options of an engine that concern releases. */

import { shown, typeName } from "../errors.js";
import type { EngineOptions } from "../options.js";
import { utf8 } from "../runtime/text.js";
import type { BundleStore } from "./bundleStore.js";
import { IndexedDbBundleStore } from "./indexedDbBundleStore.js";
import { FetchReleases, type ReleaseSource } from "./releaseSource.js";

/** Where releases come from, and where they are kept. */
export interface ReleaseOptions {
  /** Null where nothing is to be updated. */
  readonly source: ReleaseSource | null;

  /** The content of root.json. */
  readonly root: Uint8Array;

  /** Null where nothing was ever installed. */
  readonly store: BundleStore | null;
}

/**
 * Returns the options with defaults.
 *
 * Throws `TypeError` for an option of a wrong type, `RangeError` for one that lacks another.
 */
export function releaseOptions(options: EngineOptions): ReleaseOptions {
  const { releases = null, root = null, bundles = null, state = null } = options;
  if (bundles !== null && typeof bundles.lock !== "function") {
    throw new TypeError(`bundles: expected a store of bundles, found ${typeName(bundles)}`);
  }
  if (releases === null) {
    return { source: null, root: new Uint8Array(0), store: bundles };
  }
  const isSource = typeof releases === "object" && typeof releases.read === "function";
  if (typeof releases !== "string" && !isSource) {
    throw new TypeError(`releases: expected a URL or a source, found ${typeName(releases)}`);
  }
  if (!(typeof root === "string" || root instanceof Uint8Array)) {
    throw new TypeError(
      `root: expected the content of the repository's root.json, found ${shown(root)}`,
    );
  }
  // The id of an install, which partial rollouts go by, is stored there.
  if (state === null || (bundles === null && typeof state !== "string")) {
    throw new RangeError(
      "releases: expected `state` with it, and `bundles` where that is no name: releases have to" +
        " be kept somewhere; pass state: \"shop\"",
    );
  }
  return {
    source: typeof releases === "string" ? new FetchReleases(releases) : releases,
    root: typeof root === "string" ? utf8(root) : root,
    store: bundles ?? new IndexedDbBundleStore(state as string),
  };
}
