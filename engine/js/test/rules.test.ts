import assert from "node:assert/strict";
import { test } from "node:test";

import { Engine } from "../src/engine.js";
import type { Where } from "../src/rules/types.js";
import type { Slate } from "../src/slate.js";
import { TINY } from "./support/bundles.js";
import { KERNELS } from "./support/kernels.js";

const open = () => Engine.open(TINY, { kernels: KERNELS[0]! });

function valuesOf(slate: Slate, attribute: string): unknown[] {
  return slate.items.map((item) => item.attributes[attribute]);
}

test("Rules, caps, boosts and pins shape a slate, and its explanation repeats it.", async () => {
  const engine = await open();
  const slate = await engine.recommend({
    user: "ada",
    k: 6,
    where: { year: { ge: 1850 }, not: { shelf: "crime" } },
    atMost: { author: 1 },
    boost: [{ where: { shelf: "sea" }, by: 0.5 }],
    pin: { 2: "moby-dick" },
    diversity: 0.3,
  });
  assert.equal(slate.length, 6);
  assert.equal(slate.items[2]!.id, "moby-dick");
  assert.ok(slate.items[2]!.pinned);
  assert.ok(valuesOf(slate, "year").every((year) => Number(year) >= 1850));
  assert.ok(!valuesOf(slate, "shelf").includes("crime"));
  assert.equal(new Set(valuesOf(slate, "author")).size, 6);
  assert.ok((await engine.explain(slate.decision)).isIdentical);
});

test("Changed attributes count from the next call on, in rules, caps and slates.", async () => {
  const engine = await open();
  await engine.setAttributes({ "moby-dick": { stock: 0 }, "lord-jim": { stock: 3, price: 12.9 } });
  const inStock: Where = { stock: { gt: 0 } };
  const sold = await engine.recommend({ user: "a", where: inStock });
  assert.deepEqual(valuesOf(sold, "price"), [12.9]);

  const later = { "lord-jim": { stock: null }, emma: { stock: 7 }, "no such": { a: 1 } };
  await engine.setAttributes(later);
  const slate = await engine.recommend({ user: "a", where: inStock });
  assert.deepEqual(slate.items.map((item) => item.id), ["emma"]);
  const [lordJim] = await engine.recommend({ user: "a", among: ["lord-jim"] });
  assert.ok(!("stock" in lordJim!.attributes));
  assert.equal(lordJim!.attributes["price"], 12.9);
});

test("A wrong change is refused as a whole.", async () => {
  const engine = await open();
  const wrong: [unknown, string][] = [
    [[], "TypeError: changes: expected a mapping such as {'sku-1': {'stock': 0}}, found"],
    [{ emma: 3 }, "TypeError: changes: emma: expected attributes by name, found 3"],
    [{ emma: { title: "x" } }, "RangeError: changes: emma: expected attributes, found title"],
    [{ "": { a: 1 } }, "RangeError: changes: expected ids of 1 to 512 characters"],
    [{ emma: { a: undefined } }, "RangeError: changes: emma: expected values that JSON can"],
    [{ emma: { a: 1n } }, "RangeError: changes: emma: expected values that JSON can hold"],
    [{ emma: { year: 7 }, ulysses: { year: "x" } }, "TypeError: changes: ulysses: year: exp"],
  ];
  for (const [changes, message] of wrong) {
    await assert.rejects(engine.setAttributes(changes as never), (error: Error) => {
      assert.ok(String(error).startsWith(message), String(error));
      return true;
    });
  }
  assert.equal((await engine.recommend({ user: "a", where: { year: 7 } })).length, 0);
});

test("What JSON would leave out of a rule is an error, not an empty rule.", async () => {
  const engine = await open();
  for (const value of [undefined, new Map(), () => 3, { in: new Set() }, 1n]) {
    await assert.rejects(engine.recommend({ user: "a", where: { year: value } }), {
      name: "TypeError",
      message: /^where: expected what JSON can hold, found a value of type/,
    });
  }
  const cycle: Record<string, unknown> = {};
  cycle["not"] = cycle;
  await assert.rejects(engine.recommend({ user: "a", where: cycle }), TypeError);
  await assert.rejects(engine.recommend({ user: "a", where: { year: NaN } }), /found null/);
});

test("Names that every object inherits are attributes of the items that have them.", async () => {
  const engine = await open();
  for (const name of ["constructor", "toString", "hasOwnProperty"]) {
    await assert.rejects(
      engine.recommend({ user: "a", where: { [name]: 1 } }),
      /expected an attribute that an item has/,
    );
    assert.equal((await engine.recommend({ user: "a", atMost: { [name]: 1 } })).length, 10);
  }
  const changes = JSON.parse('{"emma": {"__proto__": 5, "constructor": 6}}');
  await engine.setAttributes(changes);
  const where = JSON.parse('{"__proto__": 5, "constructor": {"ge": 6}}');
  const slate = await engine.recommend({ user: "a", where });
  assert.deepEqual(slate.items.map((item) => item.id), ["emma"]);
  assert.equal(Object.getPrototypeOf(slate.items[0]!.attributes), Object.prototype);
});

test("A date is compared as its ISO text, and names sort by their characters.", async () => {
  const engine = await open();
  await engine.setAttributes({
    emma: { released: "2025-01-31T18:00:00+01:00" },
    ulysses: { released: "2025-02-01" },
  });
  const before: Where = { released: { le: new Date("2025-01-31T17:00:00Z") } };
  const slate = await engine.recommend({ user: "a", where: before });
  assert.deepEqual(slate.items.map((item) => item.id), ["emma"]);
  await assert.rejects(
    engine.recommend({ user: "a", where: { "\ud800\udc00": 1, "\uffff": 2 } }),
    /where: \uffff: expected an attribute/,
  );
});

test("Attributes are loaded before they are asked for.", async () => {
  const engine = await open();
  await engine.warmUp({ attributes: ["shelf", "year", "no such"] });
  await assert.rejects(engine.warmUp({ attributes: "shelf" }), TypeError);
  assert.equal((await engine.recommend({ user: "a", k: 3, atMost: { shelf: 1 } })).length, 3);
});
