import assert from "node:assert/strict";
import { test } from "node:test";

import { checkCaps, checkDiversity, checkK, checkPins } from "../../src/arguments.js";
import { rulesOf, withBundleRules } from "../../src/rules/bundleRules.js";
import { checkKnown } from "../../src/rules/pins.js";
import { assertFault, loadCases } from "../support/conformance.js";
import { KERNELS } from "../support/kernels.js";
import { requestOf } from "../support/requests.js";
import { assertSlate, decided, scorersOf } from "../support/slates.js";

for (const name of ["slates-schemes", "slates-requests"]) {
  const file = loadCases(name);
  const scorers = await scorersOf(file, KERNELS[0]!);

  test(`Slates under rules of ${name} are Python's, with the same probabilities.`, () => {
    const ruled = file.cases.filter(
      ({ bundle }) => name === "slates-requests" || bundle === "ruled",
    );
    assert.ok(ruled.length > 200);
    for (const each of ruled) {
      const scorer = scorers.get(each["bundle"])!;
      const request = withBundleRules(rulesOf(scorer.bundle), requestOf(each["request"]));
      assertSlate(file, each, decided(file, each, scorer, request));
    }
  });
}

test("Arguments that are none are refused with Python's sentences.", async () => {
  const file = loadCases("rules");
  const scorer = (await scorersOf(file, KERNELS[0]!)).get("shop")!;
  const checks: Record<string, (value: unknown) => unknown> = {
    k: checkK,
    at_most: checkCaps,
    diversity: checkDiversity,
    pin: (pins) => checkKnown(scorer, checkPins(pins, 5)),
  };
  // What is no whole number is `int` in Python, and has another name here.
  const invalid = file.cases.filter(
    ({ argument, error }) => argument in checks && !String(error).startsWith("k: expected int"),
  );
  assert.ok(invalid.length > 25);
  for (const each of invalid) {
    const error = each["error"].replace("at_most", "atMost");
    assertFault(() => checks[each["argument"]]!(each["value"]), { ...each, error });
  }
});
