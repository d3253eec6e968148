/** The bundles of the repository, in tests. */

import { fileURLToPath } from "node:url";

import { FolderSource } from "../../src/bundle/folderSource.js";

const ROOT = new URL("../../../../../", import.meta.url);

/** Returns the path of a file or folder of the repository. */
export function pathOf(name: string): string {
  return fileURLToPath(new URL(name, ROOT));
}

export const TINY = new FolderSource(pathOf("engine/sanderling/cli/tiny_bundle"));
export const GOLDEN = new FolderSource(pathOf("tests/golden/bundle-1"));
