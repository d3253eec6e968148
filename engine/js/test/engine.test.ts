import assert from "node:assert/strict";
import { test } from "node:test";

import { Engine } from "../src/engine.js";
import { TINY } from "./support/bundles.js";

test("A slate has k items with probabilities, and is the same when it is explained.", async () => {
  const engine = await Engine.open(TINY);
  await engine.observe("ada", "five-children-and-it", "like");
  const slate = await engine.recommend({ user: "ada", k: 5 });

  assert.equal(slate.length, 5);
  assert.equal(slate.eligible, 96);
  for (const item of slate) {
    assert.ok(item.propensity > 0 && item.propensity <= 1);
    assert.ok(item.marginal! > 0 && item.marginal! <= 1);
  }
  const explanation = await engine.explain(slate.decision);
  assert.ok(explanation.isIdentical);
  assert.equal(explanation.pool, 30);
});

test("A greedy slate shows the best items with certainty.", async () => {
  const engine = await Engine.open(TINY);
  const slate = await engine.recommend({ user: "ada", greedy: true });
  assert.deepEqual(
    slate.items.map((item) => [item.rank, item.propensity, item.marginal]),
    Array.from({ length: 10 }, (_, rank) => [rank, 1, 1]),
  );
});

test("Behaviour changes what is recommended, and a forgotten user is a new one.", async () => {
  const engine = await Engine.open(TINY);
  const idsFor = async (user: string) =>
    (await engine.recommend({ user, greedy: true })).items.map((item) => item.id);
  const before = await idsFor("ada");
  await engine.observe("ada", before[9]!, "like");
  assert.notDeepEqual(await idsFor("ada"), before);
  await engine.forgetUser("ada");
  assert.deepEqual(await idsFor("ada"), before);
});

test("Pages repeat nothing, and the last one says how many items were left.", async () => {
  const engine = await Engine.open(TINY);
  const seen = new Set<string>();
  let page = await engine.recommend({ user: "ada", k: 40 });
  while (page.length > 0) {
    page.items.forEach((item) => seen.add(item.id));
    page = await engine.recommend({ user: "ada", k: 40, after: page });
  }
  assert.equal(seen.size, 96);
  assert.equal(page.shortage, "0 of 40 items: 0 are eligible by `after`");
});

test("Excluded and removed items are not shown, and listed ones alone are.", async () => {
  const engine = await Engine.open(TINY);
  const [first, second, third] = await engine.recommend({ user: "ada", greedy: true, k: 3 });
  await engine.removeItems([first!]);
  const slate = await engine.recommend({ user: "ada", greedy: true, k: 96, exclude: [second!] });
  assert.equal(slate.length, 94);
  assert.equal(slate.items[0]!.id, third!.id);

  const listed = await engine.recommend({ user: "ada", k: 3, among: [first!, second!, "?"] });
  assert.deepEqual(listed.items.map((item) => item.id), [second!.id]);
});

test("Wrong arguments are named, and texts of users never are wrong.", async () => {
  const engine = await Engine.open(TINY);
  const calls: [unknown, string][] = [
    [{ user: 7 }, "TypeError: user: expected a string, found number"],
    [{ user: "a", k: 0 }, "RangeError: k: expected 1 to 1000, found 0"],
    [{ user: "a", exlude: [] }, "TypeError: recommend: exlude: expected one of user"],
    [{ user: "a", exclude: "12" }, "TypeError: exclude: expected several, such as an array"],
    [{ user: "a", diversity: 2 }, "RangeError: diversity: expected a number in [0, 1], found 2"],
    [{ user: "a", after: {} }, "TypeError: after: expected what `recommend` returned"],
  ];
  for (const [given, message] of calls) {
    await assert.rejects(engine.recommend(given as never), (error: Error) => {
      assert.ok(String(error).startsWith(message), String(error));
      return true;
    });
  }
  assert.equal((await engine.recommend({ user: "\ud800\0" })).length, 10);
});
