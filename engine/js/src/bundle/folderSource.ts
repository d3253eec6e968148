/** A bundle's files in a folder, for Node. */

import { lstat, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

import { checkFolder } from "../arguments.js";
import { BundleError } from "../errors.js";
import type { BundleSource } from "./source.js";

/** Reads regular files of one folder; links are none. */
export class FolderSource implements BundleSource {
  /** `name` is the folder's path. Throws `TypeError` for anything but a string. */
  constructor(readonly name: string) {
    checkFolder(name);
  }

  async read(name: string): Promise<Uint8Array | null> {
    const path = join(this.name, name);
    try {
      return (await lstat(path)).isFile() ? await readFile(path) : null;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") {
        return null;
      }
      throw new BundleError(`${path}: expected a file that can be read: ${error}`);
    }
  }

  async list(): Promise<ReadonlyMap<string, number>> {
    try {
      const lengths = new Map<string, number>();
      for (const name of await readdir(this.name)) {
        const entry = await lstat(join(this.name, name));
        // What is no regular file has no length that could fit.
        lengths.set(name, entry.isFile() ? entry.size : -1);
      }
      return lengths;
    } catch (error) {
      throw new BundleError(`${this.name}: expected a folder that can be read: ${error}`);
    }
  }
}
