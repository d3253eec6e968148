import assert from "node:assert/strict";
import { test } from "node:test";

import { idHash } from "../../src/bundle/idHash.js";
import { armOf } from "../../src/exploration/arms.js";
import { loadCases } from "../support/conformance.js";

const { cases } = loadCases("hashes");

test("Items are looked up by the hashes that Python writes.", () => {
  for (const each of cases.filter((one) => "id_hash" in one)) {
    const [low, high] = idHash(each["text"]);
    const digits = [high!, low!].map((word) => word.toString(16).padStart(8, "0")).join("");
    assert.equal(digits, each["id_hash"]);
  }
});

test("Installs are in the arms in which Python has them.", () => {
  for (const each of cases.filter((one) => "install" in one)) {
    assert.equal(armOf(each["experiment"], each["shares"], each["install"]), each["arm"]);
  }
});
