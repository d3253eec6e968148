/** Bundles in a folder, for Node: each value is a file that appears whole or not at all. */

import { mkdir, readdir, readFile, rename, rm, statfs } from "node:fs/promises";
import { dirname, join, sep } from "node:path";

import { StorageError } from "../errors.js";
import { FolderLock } from "../outbox/folderLock.js";
import { StorageFullError } from "../outbox/storage.js";
import { flushFolder, writeFlushed } from "../runtime/durableFiles.js";
import type { BundleStore } from "./bundleStore.js";

const PARTIAL = ".partial";

/** Keeps bundles in a folder, which is made when something is stored. */
export class FolderBundleStore implements BundleStore {
  readonly name: string;

  constructor(folder: string) {
    this.name = folder;
  }

  async read(key: string): Promise<Uint8Array | null> {
    try {
      return new Uint8Array(await readFile(this.#path(key)));
    } catch (error) {
      if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") {
        return null;
      }
      throw this.#fault(key, error);
    }
  }

  async write(key: string, value: Uint8Array): Promise<void> {
    const path = this.#path(key);
    const partial = path + PARTIAL;
    try {
      const made = await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      await writeFlushed(partial, value);
      await rename(partial, path);
      await flushFolder(dirname(path));
      if (made !== undefined) {
        await flushFolder(dirname(made)); // the folders are new, too
        await flushFolder(this.name);
      }
    } catch (error) {
      await rm(partial, { force: true }).catch(() => {});
      throw this.#fault(key, error);
    }
  }

  async remove(key: string): Promise<void> {
    try {
      await rm(this.#path(key), { force: true });
    } catch (error) {
      throw this.#fault(key, error);
    }
  }

  async keys(): Promise<string[]> {
    try {
      const paths = await readdir(this.name, { recursive: true }); // folders, too: no harm
      return paths.map((path) => path.split(sep).join("/"));
    } catch (error) {
      if (codeOf(error) === "ENOENT") {
        return [];
      }
      throw this.#fault("", error);
    }
  }

  async freeBytes(): Promise<number | null> {
    try {
      await mkdir(this.name, { recursive: true, mode: 0o700 });
      const { bavail, bsize } = await statfs(this.name);
      return bavail * bsize;
    } catch {
      return null; // writing tells
    }
  }

  async lock(): Promise<(() => Promise<void>) | null> {
    try {
      await mkdir(this.name, { recursive: true, mode: 0o700 });
      const lock = await FolderLock.take(this.name);
      return () => lock.close();
    } catch {
      return null;
    }
  }

  #path(key: string): string {
    return join(this.name, ...key.split("/"));
  }

  #fault(key: string, error: unknown): StorageError {
    const isFull = codeOf(error) === "ENOSPC";
    return new (isFull ? StorageFullError : StorageError)(`${this.#path(key)}: ${String(error)}`);
  }
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}
