import assert from "node:assert/strict";
import { test } from "node:test";

import { IDBFactory } from "fake-indexeddb";

import { StorageError } from "../../src/errors.js";
import type { Event } from "../../src/events/wire.js";
import { IndexedDbStorage } from "../../src/outbox/indexedDbStorage.js";
import { MemoryStorage } from "../../src/outbox/memoryStorage.js";
import { survives } from "../../src/outbox/shedding.js";
import { StorageFullError } from "../../src/outbox/storage.js";
import {
  Events,
  FlakyStorage,
  missing,
  openOutbox,
  seeded,
  stored,
  storedEvents,
} from "../support/fakes.js";

const USER = "c".repeat(32);
const GAP = `gap:${USER}`;

test("Events are numbered without a gap, and are there when the outbox opens again.", async () => {
  const storage = new MemoryStorage();
  const outbox = await openOutbox(storage);
  const events = new Events(outbox.identity.install);
  await stored(outbox, events.observation(), events.observation());
  outbox.put(() => ({ events: [events.observation()], states: new Map([["a", "1"]]) }));
  assert.equal(outbox.state("a"), "1");
  assert.deepEqual(outbox.states("a"), new Map([["a", "1"]]));
  assert.equal(outbox.counters().queued, 1);
  await outbox.close();

  const again = await openOutbox(storage);
  assert.deepEqual(again.identity, outbox.identity);
  assert.deepEqual((await storedEvents(again)).map(({ seq }) => seq), [1, 2, 3]);
  assert.equal(again.state("a"), "1");
});

test("An event that is stored twice is there once.", async () => {
  const outbox = await openOutbox(new MemoryStorage());
  const event = new Events(outbox.identity.install).observation();
  await stored(outbox, event);
  await stored(outbox, event);
  assert.equal((await storedEvents(outbox)).length, 1);
});

test("A write that fails is tried again, and its caller waits until it is stored.", async () => {
  const storage = new FlakyStorage();
  const outbox = await openOutbox(storage);
  const events = new Events(outbox.identity.install);
  let left = 2;
  storage.fail = () => {
    if (left-- > 0) {
      throw new StorageError("the disk is tired");
    }
  };
  const done = stored(outbox, events.observation());
  outbox.put(() => ({ events: [events.observation()], states: new Map([["a", "1"]]) }));
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(outbox.fault, "the disk is tired");
  assert.equal(outbox.state("a"), "1");
  await done;
  assert.equal(outbox.fault, "");
  assert.equal(outbox.counters().failedCommits, 2);
  assert.deepEqual((await storedEvents(outbox)).map(({ seq }) => seq), [1, 2]);
});

test("What is acknowledged is deleted, and the others are sent again.", async () => {
  const outbox = await openOutbox(new MemoryStorage());
  const events = new Events(outbox.identity.install);
  const [first, second] = [events.observation(), events.observation()];
  await stored(outbox, first, second);
  assert.equal((await outbox.oldest(1, 1e6)).length, 1);
  await outbox.acknowledge([first.id, "unknown"]);
  assert.deepEqual((await storedEvents(outbox)).map(({ id }) => id), [second.id]);
  assert.equal(outbox.counters().acknowledged, 1);
});

test("A rejected event is declared lost, and leaves a gap in its user's state.", async () => {
  const outbox = await openOutbox(new MemoryStorage());
  const event = new Events(outbox.identity.install).observation();
  await stored(outbox, event);
  await outbox.reject(event.id, "conflict");
  await outbox.reject(event.id, "conflict");
  const [loss, ...others] = await storedEvents(outbox);
  assert.equal(others.length, 0);
  assert.ok(loss?.type === "loss");
  const { seq, reason, observations, lost_seqs } = loss;
  assert.deepEqual([seq, reason, observations, lost_seqs], [2, "conflict", 1, [1]]);
  assert.equal(missing([loss]), 0);
  assert.deepEqual(outbox.counters().lost, { conflict: 1 });

  assert.ok(outbox.clearGap(USER));
  await outbox.submit(() => ({ events: [], states: new Map([[GAP, null]]) }));
  assert.ok(!outbox.clearGap(USER));
});

test("An event that cannot be encoded is declared; the others of its request stay.", async () => {
  const outbox = await openOutbox(new MemoryStorage());
  const events = new Events(outbox.identity.install);
  const broken = events.observation({ item: "half \ud800" });
  const large = events.observation({ item: "x".repeat(300_000) });
  await assert.rejects(stored(outbox, broken, events.observation(), large), /not stored: expected/);
  const found = await storedEvents(outbox);
  assert.deepEqual(found.map(({ type }) => type), ["observation", "loss"]);
  assert.equal(missing(found), 0);
  assert.deepEqual(outbox.counters().lost, { unencodable: 2 });
});

test("A forgotten user's events and states are deleted, queued ones too.", async () => {
  const outbox = await openOutbox(new MemoryStorage());
  const events = new Events(outbox.identity.install);
  const other = events.observation({ user: "d".repeat(32) });
  await stored(outbox, events.observation(), other);
  await outbox.oldest(1, 1e6);
  const states = new Map([["key", "state"]]);
  const forgotten = outbox.forget(new Set([USER]), new Set(["key"]));
  outbox.put(() => ({ events: [events.observation()], states }));
  await forgotten;
  assert.equal(outbox.state("key"), undefined);
  await stored(outbox, events.observation({ user: "d".repeat(32) }));
  const found = await storedEvents(outbox);
  const types = ["loss", "loss", "observation", "observation"]; // one that was stored, one queued
  assert.deepEqual(found.map(({ type }) => type).sort(), types);
  assert.equal(found[0]!.id, other.id);
  assert.equal(missing(found), 0);
});

test("A new identity leaves nothing of the old one, whose queued events are dropped.", async () => {
  const outbox = await openOutbox(new MemoryStorage());
  const { install } = outbox.identity;
  const events = new Events(install);
  await stored(outbox, events.observation());
  let reloads = 0;
  outbox.onReload(() => (reloads += 1));
  const reset = outbox.resetIdentity();
  const late = outbox.submit(() => {
    if (outbox.identity.install !== install) {
      throw new StorageError("the identity has changed");
    }
    return { events: [events.observation()], states: new Map() };
  });
  await Promise.all([reset, assert.rejects(late, /the identity has changed/)]);
  assert.notEqual(outbox.identity.install, install);
  assert.equal(reloads, 1);
  assert.deepEqual(await storedEvents(outbox), []);
});

test("An identity is rotated only when nothing is left to send.", async () => {
  const outbox = await openOutbox(new MemoryStorage());
  const { install } = outbox.identity;
  const event = new Events(install).observation();
  await stored(outbox, event);
  await outbox.rotateIdentity();
  assert.equal(outbox.identity.install, install);
  await outbox.acknowledge([event.id]);
  await outbox.rotateIdentity();
  assert.notEqual(outbox.identity.install, install);
});

test("A full outbox sheds whole decisions, weighs the others, declares what it lost.", async () => {
  const outbox = await openOutbox(new MemoryStorage(), 2 ** 16);
  const events = new Events(outbox.identity.install);
  const decisions = new Set<string>();
  for (let i = 0; i < 200; i++) {
    const decision = events.decision();
    const [clicked, skipped] = [true, false].map((updates) =>
      events.outcome(decision, { updates_state: updates }),
    );
    decisions.add(decision.id);
    await stored(outbox, decision);
    await stored(outbox, clicked!).catch(() => {}); // its decision may have been shed already
    await stored(outbox, skipped!).catch(() => {});
  }
  const found = await storedEvents(outbox);
  assert.equal(missing(found), 0);
  assert.equal(found.filter(({ type }) => type === "loss").length, 1);
  assert.ok(outbox.counters().lost["full"]! > 100);
  for (const event of found) {
    if (event.type === "decision") {
      const level = Math.round(-Math.log2(event.pass_probability));
      assert.ok(survives(event.id, level));
    }
    if (event.type === "outcome") {
      assert.ok(found.some(({ id }) => id === event.decision));
    }
  }
});

test("Behaviour is shed where it takes most of the room, and marks its gap.", async () => {
  const outbox = await openOutbox(new MemoryStorage(), 2 ** 16);
  const events = new Events(outbox.identity.install);
  for (let i = 0; i < 300; i++) {
    await stored(outbox, events.observation());
  }
  assert.equal(missing(await storedEvents(outbox)), 0);
  assert.ok(outbox.clearGap(USER));
});

test("What was sent is never shed: a full outbox then refuses new events.", async () => {
  const outbox = await openOutbox(new MemoryStorage(), 2 ** 16);
  const events = new Events(outbox.identity.install);
  for (let i = 0; i < 120; i++) {
    await stored(outbox, events.decision()).catch(() => {});
    await outbox.oldest(1000, 1e6);
  }
  await assert.rejects(stored(outbox, events.observation()), /not stored: the outbox is full/);
  const found = await storedEvents(outbox);
  assert.ok(found.filter(({ type }) => type === "decision").length >= 65);
  outbox.put(() => ({ events: [events.decision()], states: new Map() }));
});

test("States that were written longest ago give way to new ones.", async () => {
  const outbox = await openOutbox(new MemoryStorage(), 2 ** 16);
  for (let i = 0; i < 400; i++) {
    await outbox.submit(() => ({ events: [], states: new Map([[`user-${i}`, "x".repeat(300)]]) }));
  }
  assert.equal(outbox.state("user-0"), undefined);
  assert.equal(outbox.state("user-399")?.length, 300);
});

test("Where the browser has less room than the limit, the outbox makes do with less.", async () => {
  const storage = new FlakyStorage();
  const outbox = await openOutbox(storage);
  const events = new Events(outbox.identity.install);
  const rows = new Set<number>();
  storage.fail = (changes) => {
    const after = new Set(rows);
    changes.remove.forEach((seq) => after.delete(seq));
    changes.put.forEach(({ seq }) => after.add(seq));
    if (after.size > 30) {
      throw new StorageFullError("no room");
    }
    rows.clear();
    after.forEach((seq) => rows.add(seq));
  };
  for (let i = 0; i < 100; i++) {
    await stored(outbox, events.decision());
  }
  assert.equal(missing(await storedEvents(outbox)), 0);
  assert.ok(outbox.counters().lost["full"]! > 0);
});

test("Two tabs that store at the same time lose nothing and number nothing twice.", async () => {
  const factory = new IDBFactory();
  const open = async () => openOutbox(await IndexedDbStorage.open("shop", { factory }));
  const tabs = await Promise.all([open(), open()]);
  assert.deepEqual(tabs[0]!.identity, tabs[1]!.identity);
  const makers = tabs.map((tab, i) => new Events(tab.identity.install, i));
  const writes = Array.from({ length: 60 }, (_, i) => {
    const tab = tabs[i % 2]!;
    const event = makers[i % 2]!.observation({ user: String(i).padStart(32, "0") });
    const count = `count-${i % 3}`;
    return tab.submit(() => {
      const n = Number(tab.state(count) ?? 0) + 1;
      return { events: [event], states: new Map([[count, String(n)]]) };
    });
  });
  await Promise.all(writes);
  await tabs[0]!.refresh();
  await tabs[0]!.submit(() => ({ events: [], states: new Map([["last", "1"]]) }));
  const found = await storedEvents(tabs[0]!);
  const users = new Set(found.map((event) => (event.type === "loss" ? "" : event.user)));
  assert.equal(missing(found), 0);
  assert.equal(users.size, 60);
  assert.deepEqual([0, 1, 2].map((i) => tabs[0]!.state(`count-${i}`)), ["20", "20", "20"]);
  await Promise.all(tabs.map((tab) => tab.close()));
});

test("Whatever fails, in whatever order: no promise is broken, nothing is missing.", async () => {
  const { setTimeout: wait } = globalThis;
  globalThis.setTimeout = ((action: () => void) => wait(action, 0)) as typeof setTimeout;
  try {
    for (let seed = 0; seed < 25; seed++) {
      const random = seeded(seed);
      const storage = new FlakyStorage();
      storage.fail = () => {
        if (random() < 0.2) {
          throw new (random() < 0.3 ? StorageFullError : StorageError)("no");
        }
      };
      const outbox = await openOutbox(storage, 2 ** 16);
      const collector = new Map<string, Event>();
      const promised: string[] = [];
      const events = new Events(outbox.identity.install);
      for (let i = 0; i < 120; i++) {
        const decision = events.decision();
        const click = events.outcome(decision);
        outbox.put(() => ({ events: [decision], states: new Map() }));
        const done = stored(outbox, click);
        done.then(() => promised.push(click.id)).catch(() => {});
        if (random() < 0.3) {
          const batch = await outbox.oldest(20, 1e6).catch(() => []);
          batch.forEach((row) => collector.set(row.id, JSON.parse(row.line)));
          const ids = batch.map(({ id }) => id).filter(() => random() < 0.9);
          await outbox.acknowledge(ids).catch(() => {});
        }
        if (random() < 0.5) {
          await done.catch(() => {});
        }
      }
      storage.fail = () => {};
      await stored(outbox, events.decision()).catch(() => {});
      for (const event of await storedEvents(outbox)) {
        collector.set(event.id, event);
      }
      assert.equal(missing([...collector.values()]), 0, `seed ${seed}`);
      for (const id of promised) {
        const isShed = outbox.counters().lost["full"]! > 0;
        assert.ok(isShed || collector.has(id), `seed ${seed}: ${id}`);
      }
    }
  } finally {
    globalThis.setTimeout = wait;
  }
});
