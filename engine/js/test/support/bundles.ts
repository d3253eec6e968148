/** The bundles of the repository, in tests. */

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { FolderSource } from "../../src/bundle/folderSource.js";

const ROOT = new URL("../../../../../", import.meta.url);

/** Returns the path of a file or folder of the repository. */
export function pathOf(name: string): string {
  return fileURLToPath(new URL(name, ROOT));
}

export const TINY = new FolderSource(pathOf("engine/sanderling/cli/tiny_bundle"));
export const GOLDEN = new FolderSource(pathOf("tests/golden/bundle-1"));

/** Returns the files of a bundle's folder in the repository, by name. */
export function filesIn(folder: string): Map<string, Uint8Array> {
  const path = pathOf(folder);
  const names = readdirSync(path);
  return new Map(names.map((name) => [name, new Uint8Array(readFileSync(join(path, name)))]));
}

/** Makes a manifest say the lengths and hashes of some files, which were changed. */
export function reseal(files: Map<string, Uint8Array>, names: readonly string[]): void {
  const manifest = JSON.parse(new TextDecoder().decode(files.get("manifest.json")));
  for (const name of names) {
    const data = files.get(name)!;
    const sha256 = createHash("sha256").update(data).digest("hex");
    manifest.files[name] = { length: data.length, sha256 };
  }
  files.set("manifest.json", new TextEncoder().encode(JSON.stringify(manifest)));
}
