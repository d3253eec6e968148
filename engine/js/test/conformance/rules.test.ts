import assert from "node:assert/strict";
import { test } from "node:test";

import { addition } from "../../src/ranking/catalogOverlay.js";
import { checkedChanges } from "../../src/rules/attributeChanges.js";
import { parseBoosts, rowBoosts } from "../../src/rules/boosts.js";
import { BundleColumns, CatalogAttributes } from "../../src/rules/catalogAttributes.js";
import { parseRule } from "../../src/rules/where.js";
import type { Attributes } from "../../src/slate.js";
import { assertFault, type Case, loadCases, openBundle } from "../support/conformance.js";

const file = loadCases("rules");
const catalogs = new Map<string, CatalogAttributes>();
for (const name of ["shop", "golden", "shop+"]) {
  catalogs.set(name, await catalogOf(name, file.catalogs[name]));
}

/** Returns the attributes of a bundle, and of what an app did to its catalog. */
async function catalogOf(name: string, calls?: Case): Promise<CatalogAttributes> {
  const bundle = await openBundle(file.bundles[calls?.["bundle"] ?? name]!);
  const columns = new BundleColumns(bundle);
  const n = bundle.manifest.sizes.items;
  if (calls === undefined) {
    return new CatalogAttributes(columns, n, []);
  }
  const removed = new Set<string>(calls["remove"]);
  const added: Attributes[] = calls["upsert"]
    .filter((record: Case) => !removed.has(record["id"]))
    .map((record: Case) => addition(record, calls["now_ms"]));
  const changed = new Map<number, Attributes>();
  for (const [item, attributes] of checkedChanges(calls["set_attributes"])) {
    const place = added.findIndex((record) => record["id"] === item);
    if (place >= 0) {
      added[place] = { ...added[place], ...attributes };
    } else {
      changed.set(bundle.find(item)!, attributes);
    }
  }
  return new CatalogAttributes(columns, n, added, changed);
}

/** Returns which rows meet a rule, a bit each, as the hex digits of bytes, lowest bit first. */
function maskOf(catalog: string, where: unknown): string {
  const isMatch = catalogs.get(catalog)!.matches(parseRule(where));
  const bytes = new Uint8Array(Math.ceil(isMatch.length / 8));
  isMatch.forEach((bit, row) => {
    bytes[row >> 3]! |= bit << (row & 7);
  });
  return Buffer.from(bytes).toString("hex");
}

test("Rules hold for the same rows as in Python.", () => {
  const valid = file.cases.filter((each) => "rows" in each);
  assert.ok(valid.length > 1000);
  for (const { catalog, where, rows } of valid) {
    assert.equal(maskOf(catalog, where), rows, JSON.stringify(where));
  }
});

test("Rules that are none are refused with Python's sentences.", () => {
  const invalid = file.cases.filter((each) => "catalog" in each && "raises" in each);
  assert.ok(invalid.length > 50);
  for (const each of invalid) {
    assertFault(() => maskOf(each["catalog"], each["where"]), each);
  }
});

test("Boosts that are none are refused with Python's sentences.", () => {
  const invalid = file.cases.filter((each) => each["argument"] === "boost");
  assert.ok(invalid.length > 10);
  for (const each of invalid) {
    assertFault(() => rowBoosts(catalogs.get("shop")!, parseBoosts(each["value"])), each);
  }
});
