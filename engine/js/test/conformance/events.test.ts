import assert from "node:assert/strict";
import { test } from "node:test";

import * as codec from "../../src/events/codec.js";
import { nextChecksum } from "../../src/events/stateChecksum.js";
import { blake2b } from "../../src/runtime/blake2b.js";
import { uuid7 } from "../../src/runtime/clock.js";
import { hex, unhex, utf8 } from "../../src/runtime/text.js";
import { loadCases } from "../support/conformance.js";

const hashes = loadCases("hashes").cases;

test("Events decoded and encoded again are the same lines.", () => {
  const { cases } = loadCases("events");
  for (const { line } of cases) {
    assert.equal(codec.encode(codec.decode(line)), line);
  }
});

test("Hashes of texts are Python's, lone surrogates included.", () => {
  for (const each of hashes.filter((one) => "blake2b_128" in one)) {
    assert.equal(hex(blake2b(utf8(each["text"]), 16)), each["blake2b_128"], each["text"]);
  }
});

test("Checksums of states are Python's.", () => {
  for (const each of hashes.filter((one) => "checksum" in one)) {
    const found = nextChecksum(each["before"], each["item"], each["kind"]);
    assert.equal(found, each["checksum"], JSON.stringify(each));
  }
});

test("Ids follow from the time and random bytes as in Python.", () => {
  for (const each of hashes.filter((one) => "uuid7" in one)) {
    assert.equal(uuid7(each["now_ms"], () => unhex(each["entropy"])), each["uuid7"]);
  }
});
