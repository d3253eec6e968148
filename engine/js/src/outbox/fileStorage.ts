/**
 * An outbox in a file, for Node: one line with a checksum is appended for each commit, and the file
 * is rewritten when most of it is out of date.
 */

import { createHash } from "node:crypto";
import { type FileHandle, mkdir, open, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";

import { checkFolder } from "../arguments.js";
import { StorageError } from "../errors.js";
import { flushFolder, writeFlushed } from "../runtime/durableFiles.js";
import { FolderLock } from "./folderLock.js";
import { applyChanges } from "./memoryStorage.js";
import {
  type EventRow,
  type OutboxHeader,
  type OutboxStorage,
  type StoredChanges,
  type StoredContents,
  StorageFullError,
} from "./storage.js";

const FILE = "outbox.log";
const DAMAGED = "corrupt.log";
const NEXT = "outbox.log.next";

/** Bytes of a file below which it is not rewritten. */
const MIN_REWRITE_BYTES = 256 * 1024;

/** A file is rewritten when it has more than this many times the bytes of what is stored. */
const MAX_GROWTH = 3;

/** Rows of one line of a file that is rewritten. */
const ROWS_PER_LINE = 500;

const CHECKSUM_DIGITS = 16;

/** One commit, with short names: they are in every line. */
interface Line {
  readonly h: OutboxHeader;
  readonly c?: true; // clear
  readonly d?: true; // durable
  readonly r?: readonly number[];
  readonly p?: readonly EventRow[];
  readonly s?: readonly (readonly [string, string | null])[];
}

/** The outbox of one folder. */
export class FileStorage implements OutboxStorage {
  readonly kind = "file";
  readonly fault = "";
  onForeignChange = (): void => {};
  readonly #folder: string;
  readonly #lock: FolderLock;
  readonly #rows = new Map<number, EventRow>();
  readonly #states = new Map<string, string>();
  #header: OutboxHeader | null = null;
  #file: FileHandle | null = null;
  #size = 0; // bytes of the whole lines
  #isTaken = false;

  private constructor(folder: string, lock: FolderLock) {
    this.#folder = folder;
    this.#lock = lock;
  }

  /**
   * Opens the outbox of a folder, which is made where it is missing.
   *
   * Throws `StorageError` where another engine has it open, or it cannot be used, `TypeError` for
   * what is no path.
   */
  static async open(folder: string): Promise<FileStorage> {
    checkFolder(folder);
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
    } catch (error) {
      throw unusable(folder, error);
    }
    return new FileStorage(folder, await FolderLock.take(folder));
  }

  async load(): Promise<StoredContents> {
    if (this.#isTaken) {
      const folder = this.#folder;
      throw new StorageError(
        `${folder}: expected a storage of its own for each engine, found one that an engine was` +
          " opened with; close that engine, then call FileStorage.open again",
      );
    }
    this.#isTaken = true;
    try {
      await this.#read();
      const isNew = this.#header === null || this.#header.seq === 0;
      const wasDamaged = isNew && (await exists(this.#path(DAMAGED)));
      this.#file = await open(this.#path(FILE), "a", 0o600); // it holds the install's secret
      await this.#file.truncate(this.#size);
      await flushFolder(this.#folder);
      const states = new Map(this.#states);
      return { header: this.#header, rows: [...this.#rows.values()], states, wasDamaged };
    } catch (error) {
      throw unusable(this.#folder, error);
    }
  }

  async commit(changes: StoredChanges): Promise<void> {
    try {
      await this.#append(changes);
    } catch (error) {
      const isFull = (error as NodeJS.ErrnoException).code === "ENOSPC";
      throw new (isFull ? StorageFullError : StorageError)(`${this.#path(FILE)}: ${String(error)}`);
    }
    applyChanges(changes, this.#rows, this.#states);
    this.#header = changes.header;
    if (this.#isMostlyOld()) {
      await this.#rewrite().catch(() => {}); // the commit stands; the next one tries again
    }
  }

  async scrub(): Promise<void> {
    try {
      await rm(this.#path(DAMAGED), { force: true });
      await this.#rewrite();
    } catch (error) {
      throw new StorageError(`${this.#folder}: deleted bytes are still there: ${String(error)}`);
    }
  }

  async exclusively<T>(action: () => Promise<T>): Promise<T | undefined> {
    return action(); // the folder's lock is held
  }

  async close(): Promise<void> {
    await this.#file?.close();
    this.#file = null;
    await this.#lock.close();
  }

  #path(name: string): string {
    return join(this.#folder, name);
  }

  /** Reads the file; one that is damaged is moved aside. */
  async #read(): Promise<void> {
    const data = await readFile(this.#path(FILE)).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") {
        return Buffer.alloc(0);
      }
      throw error;
    });

    const { lines, rest } = parse(data);
    // What follows a broken line was not durable, as a later durable line proves otherwise.
    if (parseAll(rest).some((line) => line.d)) {
      await rename(this.#path(FILE), this.#path(DAMAGED));
      return;
    }
    lines.forEach((line) => this.#apply(line));
    this.#size = data.length - rest.length;
  }

  #apply(line: Line): void {
    const states = new Map(line.s ?? []);
    const changes = { clear: line.c ?? false, remove: line.r ?? [], put: line.p ?? [], states };
    applyChanges(changes, this.#rows, this.#states);
    this.#header = line.h;
  }

  async #append(changes: StoredChanges): Promise<void> {
    if (this.#file === null) {
      throw new Error("the outbox is closed");
    }
    const [ours, present] = await Promise.all([this.#file.stat(), stat(this.#path(FILE))]);
    if (ours.ino !== present.ino || ours.dev !== present.dev) {
      // What is written into a file that was removed or replaced is gone when it is closed.
      throw new Error("expected the file that was opened, found another, or none");
    }
    if (ours.size !== this.#size) {
      await this.#file.truncate(this.#size); // after a write that failed, part of a line is there
    }
    const line = encode(changes);
    await this.#file.writeFile(line);
    if (changes.durable) {
      await this.#file.datasync();
    }
    this.#size += line.length;
  }

  #isMostlyOld(): boolean {
    if (this.#size < MIN_REWRITE_BYTES) {
      return false;
    }
    let live = 0;
    this.#rows.forEach((row) => (live += row.line.length));
    this.#states.forEach((value, key) => (live += key.length + value.length));
    return this.#size > MAX_GROWTH * live;
  }

  /** Replaces the file by one that holds what is stored now, and no byte of what was deleted. */
  async #rewrite(): Promise<void> {
    const rows = [...this.#rows.values()];
    const common = { header: this.#header!, remove: [], durable: true };
    const parts = [encode({ ...common, clear: true, put: [], states: this.#states })];
    for (let start = 0; start < rows.length; start += ROWS_PER_LINE) {
      const put = rows.slice(start, start + ROWS_PER_LINE);
      parts.push(encode({ ...common, clear: false, put, states: new Map() }));
    }
    const data = Buffer.concat(parts);
    await writeFlushed(this.#path(NEXT), data);
    await rename(this.#path(NEXT), this.#path(FILE));
    await flushFolder(this.#folder);

    await this.#file?.close();
    this.#file = await open(this.#path(FILE), "a", 0o600);
    this.#size = data.length;
  }
}

function encode(changes: StoredChanges): Buffer {
  const line: Line = {
    h: changes.header,
    ...(changes.clear ? { c: true } : {}),
    ...(changes.durable ? { d: true } : {}),
    ...(changes.remove.length > 0 ? { r: changes.remove } : {}),
    ...(changes.put.length > 0 ? { p: changes.put } : {}),
    ...(changes.states.size > 0 ? { s: [...changes.states] } : {}),
  };
  const text = JSON.stringify(line);
  return Buffer.from(`${checksum(Buffer.from(text))} ${text}\n`);
}

/** Returns the lines up to the first that is damaged, and the bytes from there on. */
function parse(data: Buffer): { lines: Line[]; rest: Buffer } {
  const lines: Line[] = [];
  let start = 0;
  for (;;) {
    const end = data.indexOf("\n", start);
    const line = end < 0 ? null : parseLine(data.subarray(start, end));
    if (line === null) {
      return { lines, rest: data.subarray(start) };
    }
    lines.push(line);
    start = end + 1;
  }
}

/** Returns all intact lines, whatever is between them. */
function parseAll(data: Buffer): Line[] {
  const lines: Line[] = [];
  let start = 0;
  for (let end = data.indexOf("\n"); end >= 0; end = data.indexOf("\n", start)) {
    const line = parseLine(data.subarray(start, end));
    if (line !== null) {
      lines.push(line);
    }
    start = end + 1;
  }
  return lines;
}

function parseLine(line: Buffer): Line | null {
  const text = line.subarray(CHECKSUM_DIGITS + 1);
  const isIntact = line.toString("latin1", 0, CHECKSUM_DIGITS) === checksum(text);
  return isIntact ? JSON.parse(text.toString()) : null;
}

function checksum(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex").slice(0, CHECKSUM_DIGITS);
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(() => true, () => false);
}

function unusable(folder: string, error: unknown): StorageError {
  const reason = error instanceof StorageError ? error.message : String(error);
  return new StorageError(
    `expected a usable outbox in ${folder}: ${reason}: free the disk or fix the rights`,
  );
}
