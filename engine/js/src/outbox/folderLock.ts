/** The lock of a state folder in Node: one engine a folder. */

import { createHash } from "node:crypto";
import { realpathSync, rmSync } from "node:fs";
import { connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { StorageError } from "../errors.js";

/**
 * Holds a folder's lock until it is closed.
 *
 * Node has no locks of files. A local socket of the folder's name serves as one: the system takes
 * it back when the process ends, however it ends.
 */
export class FolderLock {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** Takes the lock; throws `StorageError` when another engine holds it. */
  static async take(folder: string): Promise<FolderLock> {
    const path = socketPath(realpathSync(folder));
    try {
      return new FolderLock(await listen(path));
    } catch (error) {
      const isFile = process.platform !== "linux" && process.platform !== "win32";
      if (isFile && !(await isAlive(path))) {
        rmSync(path, { force: true }); // left by a process that ended without closing it
        return new FolderLock(await listen(path));
      }
      const isTaken = (error as NodeJS.ErrnoException).code === "EADDRINUSE";
      const reason = isTaken ? "found another: close it first" : String(error);
      throw new StorageError(`${folder}: expected one engine per state folder, ${reason}`);
    }
  }

  /** Releases the folder. */
  async close(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }
}

function socketPath(folder: string): string {
  const name = `sanderling-${createHash("sha256").update(folder).digest("hex").slice(0, 32)}`;
  if (process.platform === "linux") {
    return `\0${name}`; // of the abstract namespace, which has no files
  }
  return process.platform === "win32" ? `\\\\.\\pipe\\${name}` : join(tmpdir(), `${name}.sock`);
}

function listen(path: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once("error", reject);
    server.listen({ path }, () => {
      server.unref(); // an engine that was not closed must not keep its process alive
      resolve(server);
    });
  });
}

function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}
