import assert from "node:assert/strict";
import { test } from "node:test";

import type { SearchResult } from "../../src/kernels/kernelSet.js";
import type { Scorer } from "../../src/ranking/scorer.js";
import { parseRule } from "../../src/rules/where.js";
import { ItemSearch } from "../../src/search/itemSearch.js";
import { wordsOf } from "../../src/search/words.js";
import { catalogScorer } from "../support/catalogs.js";
import { type Case, loadCases, unpacked } from "../support/conformance.js";
import { NAIVE_KERNELS } from "../support/naiveKernels.js";

const file = loadCases("find");
const names = new Set<string>(file.cases.map(({ catalog }) => catalog));
const scorers = new Map<string, Scorer>();
const searches = new Map<string, ItemSearch>();
for (const name of names) {
  searches.set(name, new ItemSearch());
  scorers.set(name, await catalogScorer(file, name, NAIVE_KERNELS));
}

function assertFound(scorer: Scorer, found: SearchResult, each: Case): void {
  const items = Array.from(found.rows, (row) => scorer.item(row).id);
  const about = JSON.stringify(each);
  assert.deepEqual(items, each["items"], about);
  found.scores.forEach((score, i) => {
    const difference = Math.abs(score - each["scores"][i]);
    assert.ok(difference <= file.tolerance["scores"]!, `${score}: ${about}`);
  });
}

function masksOf(scorer: Scorer, each: Case) {
  const rule = each["where"] === undefined ? null : parseRule(each["where"]);
  return scorer.eligible(rule, null).masks;
}

test("Texts have the same words as in Python.", () => {
  const { cases } = loadCases("words");
  assert.ok(cases.length > 200);
  for (const { text, at_most: atMost, words } of cases) {
    assert.deepEqual(wordsOf(text, atMost), words, JSON.stringify(text));
  }
});

test("Searches by words, meaning and taste find what Python's find.", () => {
  const queries = file.cases.filter((each) => "query" in each);
  assert.ok(queries.length >= 400);
  for (const each of queries) {
    const scorer = scorers.get(each["catalog"])!;
    const bundle = file.catalogs[each["catalog"]]?.["bundle"] ?? each["catalog"];
    const user = unpacked(file.users[bundle]![each["user"]]!);
    const meaning = each["meaning"] === undefined ? null : unpacked(each["meaning"]);
    const masks = masksOf(scorer, each);
    const search = searches.get(each["catalog"])!;
    const found = search.text(scorer).search(each["query"], each["k"], user, meaning, masks);
    assertFound(scorer, found, each);
  }
});

test("Similar items are those of Python.", () => {
  const likenesses = file.cases.filter((each) => "item" in each);
  assert.ok(likenesses.length >= 300);
  for (const each of likenesses) {
    const scorer = scorers.get(each["catalog"])!;
    const row = scorer.find(each["item"])!;
    const search = searches.get(each["catalog"])!;
    const found = search.similar(scorer).nearest(row, each["k"], masksOf(scorer, each));
    assertFound(scorer, found, each);
  }
});
