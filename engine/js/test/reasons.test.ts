import assert from "node:assert/strict";
import { test } from "node:test";

import { Engine } from "../src/engine.js";
import { twoDigits } from "../src/reasons/sentence.js";
import { withoutEachWord } from "../src/reasons/texts.js";
import type { SlateItem } from "../src/slate.js";
import { TINY } from "./support/bundles.js";
import { NAIVE_KERNELS } from "./support/naiveKernels.js";

/** Encodes a text as the sum of a vector [t] for each of its letters, of length 1. */
const encoder = async () => async (text: string) => {
  const vector = new Float32Array(32).fill(0.1);
  for (const letter of text) {
    vector[letter.codePointAt(0)! % 32]! += 1;
  }
  const length = Math.hypot(...vector);
  return vector.map((value) => value / length);
};
const open = () => Engine.open(TINY, { kernels: NAIVE_KERNELS, encoder });

const BOOKS = ["emma", "moby-dick", "lord-jim", "no such item"];

async function readBooks(engine: Engine, books: readonly string[]): Promise<void> {
  for (const book of books) {
    await engine.observe("ada", book, "like");
  }
}

/** Returns the score of an item for ada. */
async function scoreOf(engine: Engine, item: string, context?: string): Promise<number> {
  const among = [item];
  const [shown] = await engine.recommend({ user: "ada", among, context: context ?? null });
  return shown!.score;
}

test("The effect of an event is the score less that of an engine that never saw it.", async () => {
  const engine = await open();
  await readBooks(engine, BOOKS);
  const slate = await engine.recommend({ user: "ada", k: 5, exclude: BOOKS, greedy: true });
  const reasons = await slate.items[0]!.why();
  assert.deepEqual(reasons, await engine.why(slate, slate.items[0]!.id));
  assert.deepEqual([reasons.eventsKnown, reasons.eventsTotal, reasons.isExact], [4, 4, true]);
  assert.equal(reasons.score, slate.items[0]!.score);
  assert.equal(reasons.rules["exclude"], 4);

  for (const [place, book] of BOOKS.entries()) {
    const other = await open();
    await readBooks(other, BOOKS.filter((_, i) => i !== place));
    const event = reasons.events.find((each) => each.item === book)!;
    assert.equal(event.ago, BOOKS.length - place);
    assert.equal(event.effect, reasons.score - (await scoreOf(other, reasons.item)));
  }
  const nobody = await scoreOf(await open(), reasons.item);
  assert.equal(reasons.historyEffect, reasons.score - nobody);
  assert.match(reasons.sentence, /^“.+” is shown because /);
});

test("The effect of a word is the score less that without it.", async () => {
  const engine = await open();
  await engine.upsertItems([{ id: "new", text: "A whaling ship", shelf: "sea" }]);
  await readBooks(engine, BOOKS);
  const context = "a stormy night, a night at sea";
  const slate = await engine.recommend({ user: "ada", among: ["new"], context });
  const { words, score, contextEffect } = await slate.items[0]!.why();
  const effectOf = (word: string, source: string) =>
    words.find((each) => each.word === word && each.source === source)!.effect;

  assert.equal(contextEffect, score - (await scoreOf(engine, "new")));
  const calm = await scoreOf(engine, "new", "a night, a night at sea");
  assert.equal(effectOf("stormy", "context"), score - calm);
  const effects = words.map(({ effect }) => effect);
  assert.deepEqual(effects, [...effects].sort((a, b) => b - a));

  await engine.upsertItems([{ id: "new", text: "A ship", shelf: "sea" }]);
  assert.equal(effectOf("whaling", "text"), score - (await scoreOf(engine, "new", context)));
});

test("A boost, a pin and passed over items are told.", async () => {
  const engine = await open();
  const boost = [{ where: { shelf: "sea" }, by: 100 }];
  const slate = await engine.recommend({
    user: "ada",
    k: 4,
    where: { shelf: { in: ["sea", "crime"] } },
    boost,
    pin: { 1: "moby-dick" },
    greedy: true,
  });
  const [first, pinned] = await Promise.all([...slate].slice(0, 2).map((item) => item.why()));
  assert.equal(first!.boost, 100);
  assert.match(first!.sentence, /because of a boost by the app/);
  assert.deepEqual(first!.rules["boost"], 1);
  assert.deepEqual(first!.rules["where"], { shelf: { in: ["sea", "crime"] } });
  assert.equal(first!.rules["greedy"], true);
  assert.equal(pinned!.sentence, `“${pinned!.title}” is pinned to this slot by the app.`);
  assert.equal(pinned!.rules["pin"], "moby-dick");
});

test("There are no reasons of copies, other slates and forgotten users.", async () => {
  const engine = await open();
  const slate = await engine.recommend({ user: "ada", k: 2 });
  const copy = structuredClone(slate.items[0]!) as SlateItem;
  assert.equal(copy.why, undefined);
  assert.equal((await engine.why(slate, copy)).item, copy.id);
  await assert.rejects(engine.why(slate, "no such"), /item: expected one of the slate's 2 items/);
  await assert.rejects(engine.why({} as never, "emma"), TypeError);
  const { slate: replayed } = await engine.explain(slate.decision);
  await assert.rejects(replayed[0]!.why(), /ask engine.why/);

  await engine.forgetUser("ada");
  await assert.rejects(slate.items[0]!.why(), /its user was forgotten since/);
  await assert.rejects((await open()).why(slate, copy.id), /forgotten since/);
});

test("Probabilities have two digits as in Python, halves to even ones.", () => {
  const written: [number, string][] = [
    [100, "1e+02"], [99.6, "1e+02"], [99.4, "99"], [12.5, "12"], [37.5, "38"], [5, "5"],
    [0.25, "0.25"], [2.25, "2.2"], [2.35, "2.4"], [0.1, "0.1"], [0.00012345, "0.00012"],
    [0.000012345, "1.2e-05"], [9.96, "10"], [1e-10, "1e-10"], [10, "10"], [30, "30"],
  ];
  for (const [value, text] of written) {
    assert.equal(twoDigits(value), text);
  }
});

test("A word is left out wherever it stands, with a blank beside it.", () => {
  assert.deepEqual([...withoutEachWord("Red shoe, red L'Été")], [
    ["red", "shoe, L'Été"],
    ["shoe", "Red, red L'Été"],
    ["l'été", "Red shoe, red"],
  ]);
});
