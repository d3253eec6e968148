/** Reads the conformance set that Python writes (docs/PORTING.md), and compares with it. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { Bundle } from "../../src/bundle/bundle.js";
import { FolderSource } from "../../src/bundle/folderSource.js";

const ROOT = new URL("../../../../../", import.meta.url);
const opened = new Map<string, Promise<Bundle>>();

/** One case: its fields are those that docs/PORTING.md lists. */
export type Case = Readonly<Record<string, any>>;

/** One file of cases. */
export interface CaseFile {
  readonly cases: readonly Case[];
  readonly bundles: Readonly<Record<string, string>>;
  readonly catalogs: Readonly<Record<string, Case>>;
  readonly users: Readonly<Record<string, readonly string[]>>;
  readonly tolerance: Readonly<Record<string, number>>;
}

/** Returns the cases of a file. */
export function loadCases(name: string): CaseFile {
  const path = new URL(`tests/conformance/${name}.json`, ROOT);
  return JSON.parse(readFileSync(path, "utf8")) as CaseFile;
}

/** Returns the bundle in a folder of the repository, opened once. */
export function openBundle(folder: string): Promise<Bundle> {
  let bundle = opened.get(folder);
  if (bundle === undefined) {
    bundle = Bundle.open(new FolderSource(fileURLToPath(new URL(folder, ROOT))));
    opened.set(folder, bundle);
  }
  return bundle;
}

/** Returns the float32 numbers of a case's vector. */
export function unpacked(text: string): Float32Array {
  const bytes = Uint8Array.from(Buffer.from(text, "base64"));
  return new Float32Array(bytes.buffer);
}

/** Asserts that a call throws what Python raises; its sentence up to the value that it found. */
export function assertFault(call: () => unknown, expected: Case): void {
  const types: Record<string, new (message: string) => Error> = {
    TypeError,
    ValueError: RangeError,
  };
  assert.throws(call, (error: Error) => {
    assert.equal(beforeFound(error.message), beforeFound(expected["error"]));
    assert.ok(error instanceof types[expected["raises"]]!, `${error.name}: ${error.message}`);
    return true;
  });
}

function beforeFound(message: string): string {
  return message.split(", found")[0]!;
}
