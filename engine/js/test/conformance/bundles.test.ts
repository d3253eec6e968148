import assert from "node:assert/strict";
import { test } from "node:test";

import { Bundle } from "../../src/bundle/bundle.js";
import { parseManifest } from "../../src/bundle/manifest.js";
import { MemorySource } from "../../src/bundle/source.js";
import { BundleError } from "../../src/errors.js";
import { Scorer } from "../../src/ranking/scorer.js";
import { parseBundleRules } from "../../src/rules/bundleRules.js";
import { filesIn, reseal } from "../support/bundles.js";
import { type Case, loadCases } from "../support/conformance.js";
import { KERNELS } from "../support/kernels.js";
import { noEncoder } from "../support/slates.js";

const FOLDER = "FOLDER";
const bundles = loadCases("bundles");
const manifests = loadCases("manifests") as ReturnType<typeof loadCases> & { base: Case };

test("Manifests are refused with Python's sentences, and no other ones.", () => {
  for (const each of manifests.cases) {
    const bytes = manifestOf(each);
    const found = faultOf(() => parseBundleRules(parseManifest(bytes).rules));
    assertFault(found, each["error"], each);
  }
});

test("Damaged bundles are refused with Python's sentences, if only by `verify`.", async () => {
  const golden = filesIn("tests/golden/bundle-1");
  let verified = 0;
  for (const each of bundles.cases) {
    const source = new MemorySource(damaged(golden, each), FOLDER);
    // Hashes are checked here whenever a file is read, in Python by `verify` alone.
    const isHash = each["verify_error"]?.includes("expected the SHA-256") === true;
    const found = await openFault(source, isHash);
    assertFault(found, isHash ? each["verify_error"] : each["error"], each);
    assertFault(await openFault(source, true), each["verify_error"], each);
    verified += 1;
  }
  assert.ok(verified > 100);
});

/** Returns the golden bundle's files with those of a case, and their hashes if it says so. */
function damaged(golden: ReadonlyMap<string, Uint8Array>, each: Case): Map<string, Uint8Array> {
  const files = new Map(golden);
  for (const [name, change] of Object.entries(each["files"] as Record<string, Case | null>)) {
    if (change === null) {
      files.delete(name);
    } else if ("base64" in change) {
      files.set(name, Buffer.from(change["base64"], "base64"));
    } else {
      const data = files.get(name)!.slice();
      for (const [offset, hex] of change["patches"]) {
        data.set(Buffer.from(hex, "hex"), offset);
      }
      files.set(name, data);
    }
  }
  if (each["reseal"] === true) {
    reseal(files, Object.keys(each["files"]));
  }
  return files;
}

async function openFault(source: MemorySource, verify: boolean): Promise<string | null> {
  try {
    const bundle = await Bundle.open(source, verify);
    Scorer.of(bundle, KERNELS[0]!, noEncoder);
    return null;
  } catch (error) {
    assert.ok(error instanceof BundleError, String(error));
    return error.message;
  }
}

/** Returns the bytes of a case's manifest. */
function manifestOf(each: Case): Uint8Array {
  if ("bundle" in each) {
    return filesIn(manifests.bundles[each["bundle"]]!).get("manifest.json")!;
  }
  if ("bytes" in each) {
    return Buffer.from(each["bytes"], "base64");
  }
  const manifest = structuredClone(manifests.base) as Record<string, any>;
  const path = each["path"].slice(0, -1) as string[];
  const last = each["path"].at(-1);
  const parent = path.reduce((object, name) => object[name], manifest);
  if ("value" in each) {
    parent[last] = each["value"];
  } else {
    delete parent[last];
  }
  return new TextEncoder().encode(JSON.stringify(manifest));
}

function faultOf(call: () => unknown): string | null {
  try {
    call();
    return null;
  } catch (error) {
    assert.ok(error instanceof BundleError, String(error));
    return error.message;
  }
}

/** Compares sentences up to what was found; the words of JSON parsers differ. */
function assertFault(found: string | null, expected: string | undefined, each: Case): void {
  assert.equal(comparable(found), comparable(expected ?? null), JSON.stringify(each));
}

function comparable(sentence: string | null): string | null {
  const isJson = /JSON is malformed|truncated|utf-8|UTF-8/;
  if (sentence === null || !isJson.test(sentence)) {
    return sentence?.split(", found")[0] ?? null;
  }
  return `${sentence.split(/: (?:JSON|Input|'utf-8'|expected UTF-8)/)[0]}: no JSON`;
}
