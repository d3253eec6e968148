import assert from "node:assert/strict";
import { test } from "node:test";

import { checkContext } from "../../src/arguments.js";
import { readFeatures } from "../../src/bundle/features.js";
import type { Tensor } from "../../src/bundle/tensors.js";
import { BundleError } from "../../src/errors.js";
import { itemText, vectorOfNew } from "../../src/ranking/addedItems.js";
import { addition } from "../../src/ranking/catalogOverlay.js";
import { checkContextValues, contextVector } from "../../src/ranking/contexts.js";
import { quantizeRows } from "../../src/ranking/quantization.js";
import { assertFault, type CaseFile, loadCases, unpacked } from "../support/conformance.js";
import { KERNELS } from "../support/kernels.js";
import { scorersOf } from "../support/slates.js";

const file = loadCases("features") as CaseFile & { readonly texts: readonly string[] };
const NOW_MS = 1_750_000_000_000;

const [first] = KERNELS;
const features = (await scorersOf(file, first!)).get("features")!;

test("Added items have the texts, features, vectors and rows of Python, bit for bit.", async () => {
  const { itemFeatures } = features;
  const cases = file.cases.filter((each) => "row" in each);
  assert.ok(cases.length >= 150);
  for (const each of cases) {
    const about = JSON.stringify(each);
    const record = addition(each["item"], NOW_MS);
    features.encoder.encodeItem = async (text) => {
      assert.equal(text, each["text"], about);
      return unpacked(file.texts[each["encoded"]]!);
    };
    assert.equal(itemText(record, itemFeatures!.tensors.schema), each["text"], about);
    assert.deepEqual(itemFeatures!.of(record), unpacked(each["features"]), about);
    const vector = await vectorOfNew(features, record);
    assert.deepEqual(vector, unpacked(each["vector"]), about);
    const { rows, scale } = quantizeRows([vector], vector.length);
    assert.deepEqual([[...rows], [...scale]], [each["row"], [each["scale"]]], about);
  }
});

for (const kernels of KERNELS) {
  test(`Contexts move scores as in Python, bit for bit, by ${kernels.source}.`, async () => {
    const scorer = (await scorersOf(file, kernels)).get("features")!;
    const { userModel, contextFeatures } = scorer;
    const t = scorer.bundle.manifest.sizes.text;
    const cases = file.cases.filter((each) => "user" in each);
    assert.ok(cases.length >= 150);
    for (const each of cases) {
      const about = JSON.stringify(each);
      const context = checkContext(each["context"]);
      checkContextValues(context, contextFeatures);
      const encode = async () => unpacked(file.texts[each["encoded"]]!);
      const vector = await contextVector(context, contextFeatures, encode, t);
      assert.deepEqual(vector, each["vector"] && unpacked(each["vector"]), about);
      let state = userModel.initialState();
      for (const [item, kind] of each["events"]) {
        state = userModel.step(state, scorer.vector(scorer.find(item)!), kind);
      }
      const user = userModel.userVector(state, vector ?? undefined);
      assert.deepEqual(user, unpacked(each["user"]), about);
      const { rows, scores } = scorer.rank(user, 3);
      assert.deepEqual([[...rows], [...scores]], [each["rows"], each["scores"]], about);
    }
  });
}

test("Values of another type are refused with Python's sentences.", () => {
  const wrong = file.cases.filter((each) => "error" in each && !("schema" in each));
  assert.ok(wrong.length > 30);
  for (const each of wrong) {
    const error = each["error"].replace("None", "null").replace(" str ", " a string ");
    const check = () => {
      if ("item" in each) {
        features.checkAdded([addition(each["item"], NOW_MS)]);
      } else {
        checkContextValues(checkContext(each["context"]), features.contextFeatures);
      }
    };
    assertFault(check, { ...each, error });
  }
});

test("Descriptions of features that are none are refused with Python's sentences.", () => {
  const wrong = file.cases.filter((each) => "schema" in each);
  assert.ok(wrong.length > 40);
  for (const { schema, of, error } of wrong) {
    const data = new TextEncoder().encode(JSON.stringify(schema));
    const tensor: Tensor = { dtype: "U8", shape: [data.length], data };
    const read = () => readFeatures(new Map([[`${of}.features`, tensor]]), of, 10);
    assert.throws(read, (found: Error) => {
      assert.ok(found instanceof BundleError);
      assert.equal(found.message.split(", found")[0], error.split(", found")[0]);
      return true;
    });
  }
});
