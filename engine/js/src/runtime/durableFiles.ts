/** Files that survive a power cut, for Node. */

import { open } from "node:fs/promises";

/** Writes a file, which only this user may read; resolves when its content is on the disk. */
export async function writeFlushed(path: string, data: Uint8Array): Promise<void> {
  const file = await open(path, "w", 0o600);
  try {
    await file.writeFile(data);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Resolves when the names in a folder are on the disk. */
export async function flushFolder(path: string): Promise<void> {
  if (process.platform === "win32") {
    return; // folders cannot be opened there
  }
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
