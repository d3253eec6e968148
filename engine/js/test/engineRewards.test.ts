import assert from "node:assert/strict";
import { test } from "node:test";

import { IDBFactory } from "fake-indexeddb";

import { Engine } from "../src/engine.js";
import { StorageError } from "../src/errors.js";
import { decode } from "../src/events/codec.js";
import { NO_EVENTS, nextChecksum } from "../src/events/stateChecksum.js";
import type { Event } from "../src/events/wire.js";
import type { EngineOptions } from "../src/options.js";
import { IndexedDbStorage } from "../src/outbox/indexedDbStorage.js";
import type { OutboxStorage } from "../src/outbox/storage.js";
import { TINY } from "./support/bundles.js";
import {
  answer,
  FakeClock,
  fakeEntropy,
  FakeTransport,
  FlakyStorage,
  missing,
  verdicts,
} from "./support/fakes.js";
import { NAIVE_KERNELS } from "./support/naiveKernels.js";

async function open(options: Partial<EngineOptions> = {}): Promise<Engine> {
  return Engine.open(TINY, { kernels: NAIVE_KERNELS, state: new FlakyStorage(), ...options });
}

/** Returns what is stored, in order. */
async function eventsOf(storage: OutboxStorage): Promise<Event[]> {
  const { rows } = await storage.load();
  return rows.map((row) => decode(row.line)).sort((a, b) => a.seq - b.seq);
}

test("A reward is stored with its decision, and moves the user's state.", async () => {
  const state = new FlakyStorage();
  const engine = await open({ state });
  const slate = await engine.recommend({ user: "ada", k: 3 });
  const receipt = await engine.reward(slate, slate.items[1]!, 1);
  assert.deepEqual(receipt, { stored: true, reason: "", pending: false, id: "" });
  const values = [[slate.items[2]!.id, -1], [slate.items[0]!, 0.5]] as const;
  await engine.rewardAll(slate, values, { kind: "play" });
  const next = await engine.recommend({ user: "ada", k: 3 });
  await engine.close();

  const events = await eventsOf(state);
  assert.equal(missing(events), 0);
  const [decision, click, play, skip, later] = events;
  assert.ok(decision?.type === "decision" && later?.type === "decision");
  assert.deepEqual([decision.id, later.id], [slate.decision, next.decision]);
  assert.deepEqual([decision.state_checksum, decision.state_events], [NO_EVENTS, 0]);
  assert.ok(click?.type === "outcome" && play?.type === "outcome" && skip?.type === "outcome");
  assert.deepEqual([click.kind, click.value, click.updates_state], ["click", 1, true]);
  assert.deepEqual([play.kind, play.slot, play.updates_state], ["play", 0, true]);
  assert.deepEqual([skip.kind, skip.slot, skip.updates_state], ["play", 2, false]);
  const checksum = nextChecksum(nextChecksum(NO_EVENTS, click.item, "click"), play.item, "play");
  assert.deepEqual([later.state_checksum, later.state_events], [checksum, 2]);
});

test("A user keeps state and pseudonym when the engine is opened again.", async () => {
  const state = new FlakyStorage();
  const engine = await open({ state });
  await engine.observe("ada", "five-children-and-it", "like");
  const before = await engine.recommend({ user: "ada", greedy: true });
  await engine.close();
  const again = await open({ state });
  const after = await again.recommend({ user: "ada", greedy: true });
  assert.deepEqual(after.items, before.items);
  assert.equal(after.pseudonym, before.pseudonym);
  assert.notEqual((await again.recommend({ user: "bob" })).pseudonym, before.pseudonym);
  await again.close();
});

test("What was seen and not rewarded in time counts as not clicked, once.", async () => {
  const state = new FlakyStorage();
  const clock = new FakeClock();
  const options = { state, clock, windowS: 60 };
  let engine = await open(options);
  const slate = await engine.recommend({ user: "ada", k: 4 });
  await engine.seen(slate, slate.items.slice(0, 3));
  await engine.reward(slate, slate.items[0]!, 1);
  await engine.close();

  engine = await open(options); // windows survive
  clock.advance(61);
  await engine.recommend({ user: "bob" });
  await engine.reward(slate, slate.items[1]!, 1);
  clock.advance(100);
  await engine.recommend({ user: "bob" });
  await engine.close();

  const outcomes = (await eventsOf(state)).filter((event) => event.type === "outcome");
  const told = outcomes.map(({ slot, value, late }) => [slot, value, late]);
  assert.deepEqual(told, [[0, 1, undefined], [1, -1, undefined], [2, -1, undefined], [1, 1, true]]);
  await assert.rejects((await open()).seen(slate), /opened with `windowS`/);
});

test("A forgotten user leaves nothing, and slates from before cannot be rewarded.", async () => {
  const state = new FlakyStorage();
  const engine = await open({ state, windowS: 60 });
  const slate = await engine.recommend({ user: "ada" });
  await engine.seen(slate);
  await engine.reward(slate, slate.items[0]!, 1);
  await engine.forgetUser("ada");
  const receipt = await engine.reward(slate, slate.items[1]!, 1);
  assert.match(receipt.reason, /the user was forgotten/);
  assert.ok(!receipt.stored && !receipt.pending);
  assert.notEqual((await engine.recommend({ user: "bob" })).pseudonym, slate.pseudonym);
  await engine.close();

  const stored = await state.load();
  const text = JSON.stringify([stored.rows, [...stored.states]]);
  assert.ok(!text.includes(slate.pseudonym) && !text.includes(slate.decision));
  assert.equal(missing(await eventsOf(state)), 0);
  await assert.rejects(engine.explain(slate.decision), RangeError);
});

test("With randomized response a slot is always flipped the same way.", async () => {
  const state = new FlakyStorage();
  const engine = await open({ state, privacy: 0.1, entropy: fakeEntropy(4) });
  const slate = await engine.recommend({ user: "ada", k: 40 });
  for (let time = 0; time < 2; time++) {
    await engine.rewardAll(slate, slate.items.map((item) => [item, 1]), { kind: "play" });
  }
  await engine.close();
  const outcomes = (await eventsOf(state)).filter((event) => event.type === "outcome");
  const values = outcomes.map(({ value }) => value);
  assert.deepEqual(values.slice(0, 40), values.slice(40));
  const flipped = values.filter((value) => value === -1).length / 2;
  assert.ok(flipped > 8 && flipped < 32, `${flipped} of 40`);
  for (const { value, kind, updates_state, flip_probability } of outcomes) {
    assert.deepEqual([kind, updates_state], [value > 0 ? "click" : "skip", false]);
    assert.equal(flip_probability, 1 / (1 + Math.exp(0.1)));
  }
});

test("Two tabs share a user: each sees what happened in the other.", async () => {
  const factory = new IDBFactory();
  const tab = async () => open({ state: await IndexedDbStorage.open("shop", { factory }) });
  const [first, second] = [await tab(), await tab()];
  const slate = await first!.recommend({ user: "ada" });
  await Promise.all([
    first!.reward(slate, slate.items[0]!, 1),
    second!.observe("ada", "five-children-and-it", "like"),
    first!.observe("ada", "emma", "like"),
    second!.observe("bob", "emma", "like"),
  ]);
  await Promise.all([first!.close(), second!.close()]);

  const storage = await IndexedDbStorage.open("shop", { factory });
  const events = await eventsOf(storage);
  await storage.close();
  assert.equal(missing(events), 0);
  const ofAda = events.filter((event) => event.type !== "loss" && event.user === slate.pseudonym);
  assert.equal(ofAda.length, 4);
  let checksum = NO_EVENTS;
  for (const event of ofAda) {
    if (event.type === "outcome" || event.type === "observation") {
      checksum = nextChecksum(checksum, event.item, event.kind);
    }
  }
  const third = await tab();
  await third.recommend({ user: "ada" });
  await third.close();
  const again = await IndexedDbStorage.open("shop", { factory });
  const decision = (await eventsOf(again)).at(-1);
  assert.ok(decision?.type === "decision");
  assert.deepEqual([decision.state_checksum, decision.state_events], [checksum, 3]);
  await again.close();
});

test("Where nothing can be stored rewards go to memory, and the receipt says so.", async () => {
  const state = new FlakyStorage();
  state.load = () => Promise.reject(new StorageError("expected a disk, found none"));
  const engine = await open({ state });
  const slate = await engine.recommend({ user: "ada" });
  const receipt = await engine.reward(slate, slate.items[0]!, 1);
  assert.ok(!receipt.stored);
  assert.match(receipt.reason, /kept in memory until this page ends: expected a disk/);
  assert.equal(engine.counters().outbox?.storage, "memory");
  assert.equal(engine.counters().outbox?.pending, 2);
  assert.equal(engine.storageFault, receipt.reason);
  await assert.rejects(engine.forgetUser("ada"), StorageError);
  await engine.close();
});

test("Without a state no reward is accepted, and recommending goes on.", async () => {
  const engine = await open({ state: null });
  const slate = await engine.recommend({ user: "ada" });
  const receipt = await engine.reward(slate, slate.items[0]!, 1);
  assert.match(receipt.reason, /not stored: the engine was opened without `state`/);
  assert.deepEqual([engine.counters().outbox, engine.counters().upload], [null, null]);
  assert.ok(!(await engine.flush()));
  await engine.forgetUser("ada");
});

test("A reward that takes too long is pending, and its receipt tells how that ended.", async () => {
  const state = new FlakyStorage();
  const engine = await open({ state });
  const slate = await engine.recommend({ user: "ada" });
  await engine.reward(slate, slate.items[0]!, 1);
  state.fail = () => {
    throw new StorageError("the disk is tired");
  };
  const receipt = await engine.reward(slate, slate.items[1]!, 1, { timeoutS: 0.05 });
  assert.ok(receipt.pending && !receipt.stored);
  assert.match(receipt.reason, /not known to be stored after 0.05 s: the disk is tired/);
  assert.deepEqual(await engine.receipt(receipt.id), receipt);
  state.fail = () => {};
  await engine.reward(slate, slate.items[2]!, 1);
  assert.ok((await engine.receipt(receipt.id)).stored);
  await assert.rejects(engine.receipt("x"), RangeError);
  await engine.close();
  assert.match((await engine.reward(slate, slate.items[3]!, 1)).reason, /the outbox is closed/);
});

test("Events are uploaded; an identity is rotated when the collector asks for it.", async () => {
  const transport = new FakeTransport();
  const engine = await open({ transport, clock: new FakeClock() });
  const slate = await engine.recommend({ user: "ada" });
  await engine.reward(slate, slate.items[0]!, 1);
  let install = "";
  transport.answer = (events) => {
    install = events[0]!.install;
    const rows = events.map(({ id }) => ({ id, verdict: "ok" }));
    return answer(200, {}, JSON.stringify({ verdicts: rows, rotate: [install] }));
  };
  assert.ok(await engine.flush());
  assert.deepEqual(transport.batches[0]!.map(({ type }) => type), ["decision", "outcome"]);
  assert.match((await engine.reward(slate, slate.items[1]!, 1)).reason, /took a new id/);
  const next = await engine.recommend({ user: "ada" });
  await engine.reward(next, next.items[0]!, 1);
  transport.answer = (events) => verdicts(events, "ok");
  assert.ok(await engine.flush());
  const last = transport.batches.at(-1)!;
  assert.notEqual(last[0]!.install, install);
  assert.notEqual(next.pseudonym, slate.pseudonym);
  assert.equal(last[0]!.seq, 1);
  await engine.close();
});

test("Old pseudonyms are rotated, after open windows got their outcomes.", async () => {
  const transport = new FakeTransport();
  const clock = new FakeClock();
  const engine = await open({ transport, clock, pseudonymDays: 1, windowS: 10 * 86_400 });
  const slate = await engine.recommend({ user: "ada", k: 2 });
  await engine.seen(slate);
  assert.ok(await engine.flush());
  clock.advance(86_401);
  await engine.flush();
  await engine.flush();
  const sent = transport.batches.flat();
  assert.deepEqual(sent.map(({ type }) => type), ["decision", "outcome", "outcome"]);
  assert.notEqual((await engine.recommend({ user: "ada" })).pseudonym, slate.pseudonym);
  await engine.close();
});

test("After a lost event a state reset precedes the user's next decision.", async () => {
  const refuse = (events: Event[]) =>
    verdicts(events, events[0]!.type === "loss" ? "ok" : "rejected");
  const transport = new FakeTransport(refuse);
  const engine = await open({ transport, clock: new FakeClock() });
  await engine.observe("ada", "emma", "like");
  await engine.flush();
  transport.answer = (events) => verdicts(events, "ok");
  await engine.observe("ada", "five-children-and-it", "like");
  await engine.recommend({ user: "ada" });
  await engine.recommend({ user: "ada" });
  assert.ok(await engine.flush());
  const sent = transport.batches.slice(1).flat().filter(({ type }) => type !== "loss");
  assert.deepEqual(
    sent.map(({ type }) => type),
    ["observation", "state_reset", "decision", "decision"],
  );
  const [, reset, decision] = sent;
  assert.ok(reset?.type === "state_reset" && decision?.type === "decision");
  assert.deepEqual(reset.steps.map(([item]) => item), ["emma", "five-children-and-it"]);
  assert.equal(decision.state_events, 2);
  await engine.close();
});

test("A clock that jumps moves the ends of windows, and loses nothing.", async () => {
  const state = new FlakyStorage();
  const clock = new FakeClock();
  const engine = await open({ state, clock, windowS: 60 });
  const slate = await engine.recommend({ user: "ada", k: 2 });
  await engine.seen(slate);
  for (const wall of [0, 4_000_000_000_000, 1_750_000_000_000]) {
    clock.wall = wall;
    const receipt = await engine.reward(slate, slate.items[0]!, 1);
    assert.ok(receipt.stored);
  }
  await engine.close();
  const events = await eventsOf(state);
  assert.equal(missing(events), 0);
  const outcomes = events.filter((event) => event.type === "outcome");
  const told = outcomes.map(({ slot, value, late }) => [slot, value, late]);
  assert.deepEqual(told, [[0, 1, undefined], [1, -1, undefined], [0, 1, true], [0, 1, undefined]]);
});

test("Wrong arguments and options are named.", async () => {
  const engine = await open();
  const slate = await engine.recommend({ user: "ada" });
  const item = slate.items[0]!;
  const reward = (given: unknown, value: unknown = 1, options: unknown = {}) =>
    engine.reward(slate, given as string, value as number, options as {});
  await assert.rejects(reward("unknown"), /item: expected one of the slate's 10 items/);
  await assert.rejects(reward(7), /item: expected an item of the slate, .+ found number 7$/);
  await assert.rejects(reward(item, 2), /value: expected a number in \[-1, 1\]/);
  await assert.rejects(reward(item, Number.NaN), RangeError);
  await assert.rejects(reward(item, "1"), TypeError);
  await assert.rejects(reward(item, 1, { kind: "" }), /kind: expected 1 to 512/);
  await assert.rejects(reward(item, 1, { timeout: 1 }), /timeout: expected one of/);
  await assert.rejects(engine.reward({} as never, item, 1), /what `recommend` returned/);
  await assert.rejects(engine.rewardAll(slate, 5 as never), /values: expected pairs/);

  const wrong: [Partial<EngineOptions>, RegExp][] = [
    [{ collector: "https://x/v1", state: null }, /expected `state` with it/],
    [{ collector: "https://x/v1", transport: new FakeTransport() }, /leave one out/],
    [{ privacy: 99 }, /privacy: expected a number in \[0.1, 20\]/],
    [{ privacy: 1, windowS: 1 }, /expected no `windowS` with it/],
    [{ windowS: 0 }, /windowS/],
    [{ pseudonymDays: 30 }, /pseudonymDays: expected `collector`/],
    [{ outboxBytes: 5 }, /outboxBytes/],
    [{ state: 5 as never }, /state: expected a name or a storage, found number/],
    [{ window: 5 } as never, /window: expected one of/],
  ];
  for (const [options, message] of wrong) {
    await assert.rejects(open(options), message);
  }
  await engine.close();
});
