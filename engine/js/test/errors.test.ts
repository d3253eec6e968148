import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { BatchSizeError, EventError, SanderlingError, shown } from "../src/errors.js";
import { VERSION } from "../src/version.js";

test("Every error on purpose is a SanderlingError with a name of its own.", () => {
  const error = new BatchSizeError("too large");
  assert.ok(error instanceof EventError);
  assert.ok(error instanceof SanderlingError);
  assert.equal(String(error), "BatchSizeError: too large");
});

test("A wrong argument of any kind is shown by at most 80 characters.", () => {
  const cycle: unknown[] = [];
  cycle.push(cycle);
  for (const value of ["x".repeat(200), 10n ** 200n, cycle, undefined, Symbol("s")]) {
    assert.ok(shown(value).length <= 80);
  }
  assert.equal(shown("kiwi"), '"kiwi"');
});

test("The package and the engine have one version.", () => {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  assert.equal(JSON.parse(text).version, VERSION);
});
