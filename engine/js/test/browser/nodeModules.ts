/**
 * Stands for Node's modules where the tests run in a browser: an import map leads `node:test`,
 * `node:assert/strict`, `node:fs` and others here. Files are those of the tests' server.
 */

import { sha256 } from "../../src/runtime/sha256.js";
import { assert } from "./strictAssert.js";

export default assert;

/** What became of one test. */
export interface TestOutcome {
  readonly name: string;

  /** The error's stack; empty for a test that passed. */
  readonly error: string;
}

type TestBody = () => unknown;
const registered: { name: string; body: TestBody }[] = [];

/** Registers a test, as `node:test` does. */
export function test(name: string, optionsOrBody: object | TestBody, body?: TestBody): void {
  registered.push({ name, body: body ?? (optionsOrBody as TestBody) });
}

/** Runs the tests of a module, one after the other. */
export async function runTests(module: string): Promise<TestOutcome[]> {
  await import(module);
  const outcomes: TestOutcome[] = [];
  for (const { name, body } of registered.splice(0)) {
    let error = "";
    try {
      await body();
    } catch (fault) {
      error = fault instanceof Error ? (fault.stack ?? fault.message) : String(fault);
    }
    outcomes.push({ name, error });
  }
  return outcomes;
}

/** Returns the bytes of a file of the server, or its text. */
export function readFileSync(path: string | URL): Uint8Array;
export function readFileSync(path: string | URL, encoding: string): string;
export function readFileSync(path: string | URL, encoding?: string): Uint8Array | string {
  const request = new XMLHttpRequest();
  request.open("GET", String(path), false);
  // Without it a synchronous answer is text: every byte becomes the character of its number.
  request.overrideMimeType("text/plain; charset=x-user-defined");
  request.send();
  if (request.status !== 200) {
    throw new Error(`ENOENT: ${path}`);
  }
  const bytes = Uint8Array.from(request.responseText, (each) => each.charCodeAt(0) & 0xff);
  return encoding === undefined ? bytes : new TextDecoder().decode(bytes);
}

/** Returns the names in a folder of the server. */
export function readdirSync(path: string): string[] {
  return JSON.parse(readFileSync(`/listing${path}`, "utf8")) as string[];
}

/** Whether the server has a file. */
export function existsSync(path: string | URL): boolean {
  try {
    readFileSync(path);
    return true;
  } catch {
    return false;
  }
}

export async function readFile(path: string | URL): Promise<Uint8Array> {
  return readFileSync(path);
}

export async function readdir(path: string): Promise<string[]> {
  return readdirSync(path);
}

export async function lstat(path: string): Promise<{ size: number; isFile: () => boolean }> {
  const response = await fetch(path, { method: "HEAD" });
  if (!response.ok) {
    throw Object.assign(new Error(`ENOENT: ${path}`), { code: "ENOENT" });
  }
  return { size: Number(response.headers.get("content-length")), isFile: () => true };
}

/** Joins parts of a path. */
export function join(...parts: readonly string[]): string {
  return parts.join("/").replace(/\/+/g, "/");
}

/** Returns the path of an address of the server. */
export function fileURLToPath(url: string | URL): string {
  return new URL(url).pathname;
}

/** Hashes as `node:crypto` does; SHA-256 only. */
export function createHash(_algorithm: "sha256"): {
  update: (data: Uint8Array) => ReturnType<typeof createHash>;
  digest: (form: "hex") => string;
} {
  let content: Uint8Array = new Uint8Array();
  const hash = {
    update: (data: Uint8Array) => {
      content = Uint8Array.from([...content, ...data]);
      return hash;
    },
    digest: () => hexOf(sha256(content)),
  };
  return hash;
}

/** Returns random bytes. */
export function randomBytes(count: number): Uint8Array {
  return crypto.getRandomValues(new Uint8Array(count));
}

/** The part of Node's `Buffer` that the tests use. */
class BufferOfPage extends Uint8Array {
  static fromText(text: string, form = "utf8"): BufferOfPage {
    if (form === "base64") {
      return BufferOfPage.from(atob(text), (each) => each.charCodeAt(0));
    }
    if (form === "hex") {
      return BufferOfPage.from(text.match(/../g) ?? [], (each) => Number.parseInt(each, 16));
    }
    return new BufferOfPage(new TextEncoder().encode(text));
  }

  override toString(form = "utf8"): string {
    if (form === "hex") {
      return hexOf(this);
    }
    if (form === "base64") {
      return btoa(Array.from(this, (each) => String.fromCharCode(each)).join(""));
    }
    return new TextDecoder().decode(this);
  }
}

function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (each) => each.toString(16).padStart(2, "0")).join("");
}

Object.assign(globalThis, {
  Buffer: {
    from: (data: string | ArrayBuffer | Uint8Array, ...rest: never[]) =>
      typeof data === "string"
        ? BufferOfPage.fromText(data, rest[0])
        : new BufferOfPage(data as ArrayBuffer, ...rest),
  },
});
