import assert from "node:assert/strict";
import { test } from "node:test";

import { loadKernels } from "../../src/kernels/loadKernels.js";
import { addition, removal } from "../../src/ranking/catalogOverlay.js";
import type { Scorer } from "../../src/ranking/scorer.js";
import { checkedChanges } from "../../src/rules/attributeChanges.js";
import { type Case, type CaseFile, loadCases, unpacked } from "../support/conformance.js";
import { requestOf } from "../support/requests.js";
import { assertSlate, decided, scorersOf } from "../support/slates.js";

const file = loadCases("slates-catalog") as CaseFile & {
  readonly catalog: Case;
  readonly texts: Readonly<Record<string, string>>;
};

test("Slates from a changed catalog are Python's, with the same probabilities.", async () => {
  const scorers = await scorersOf(file, await loadKernels());
  const scorer = await changed(scorers.get("shop")!);
  assert.ok(file.cases.length >= 200);
  for (const each of file.cases) {
    assertSlate(file, each, decided(file, each, scorer, requestOf(each["request"])));
  }
});

/** Returns the scorer after the file's calls; the encoder knows the texts of its added items. */
async function changed(scorer: Scorer): Promise<Scorer> {
  const { upsert, remove, set_attributes: attributes, now_ms: nowMs } = file.catalog;
  scorer.encoder.encodeItem = async (text) => unpacked(file.texts[text]!);
  const added = await scorer.withOverlay(upsert.map((record: Case) => addition(record, nowMs)));
  const left = await added.withOverlay(remove.map((item: string) => removal(item, nowMs)));
  return left.withChanges(checkedChanges(attributes));
}
