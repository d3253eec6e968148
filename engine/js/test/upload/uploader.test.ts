import assert from "node:assert/strict";
import { test } from "node:test";

import type { Event } from "../../src/events/wire.js";
import { MemoryStorage } from "../../src/outbox/memoryStorage.js";
import type { Outbox } from "../../src/outbox/outbox.js";
import { NoNetworkError } from "../../src/upload/transport.js";
import { Uploader, type UploadOptions } from "../../src/upload/uploader.js";
import {
  answer,
  Events,
  FakeClock,
  FakeTransport,
  openOutbox,
  seeded,
  stored,
  storedEvents,
  until,
  verdicts,
} from "../support/fakes.js";

interface Setup {
  outbox: Outbox;
  transport: FakeTransport;
  uploader: Uploader;
  clock: FakeClock;
  events: Event[];
}

async function setup(n = 3, options: Partial<UploadOptions> = {}): Promise<Setup> {
  const outbox = await openOutbox(new MemoryStorage(""));
  const make = new Events(outbox.identity.install);
  const events = Array.from({ length: n }, () => make.observation());
  await stored(outbox, ...events);
  const transport = new FakeTransport();
  const clock = new FakeClock();
  const uploader = new Uploader(outbox, transport, {
    mayUpload: () => true,
    onEmpty: async () => {},
    onRotate: () => {},
    clock,
    random: seeded(3),
    ...options,
  });
  return { outbox, transport, uploader, clock, events };
}

test("Stored events are sent, oldest first, and deleted when the collector has them.", async () => {
  let empty = 0;
  const { outbox, transport, uploader, events } = await setup(3, {
    onEmpty: async () => void (empty += 1),
  });
  assert.equal(await uploader.step(), 0);
  assert.equal(await uploader.step(), 30);
  assert.equal(empty, 1);
  const ids = transport.batches.map((batch) => batch.map(({ id }) => id));
  assert.deepEqual(ids, [events.map(({ id }) => id)]);
  assert.deepEqual(transport.headers[0], {
    "content-type": "application/x-ndjson",
    "content-encoding": "gzip",
    "sent-at": "1750000000000",
  });
  assert.equal(outbox.counters().pending, 0);
  assert.equal(uploader.counters.attempts, 1);
});

test("Only events with a known verdict are deleted; the others are sent again later.", async () => {
  const { outbox, transport, uploader, clock, events } = await setup(5);
  const told = ["ok", "duplicate", "rejected", "retry"];
  transport.answer = (batch) => {
    const rows = batch.slice(0, 4).map(({ id }, i) => ({ id, verdict: told[i], reason: "bad" }));
    return answer(200, {}, JSON.stringify({ verdicts: rows, later: 1 }));
  };
  const delay = await uploader.step();
  assert.ok(delay > 0 && delay <= 1);
  const left = await storedEvents(outbox);
  assert.deepEqual(left.slice(0, 2).map(({ id }) => id), events.slice(3).map(({ id }) => id));
  assert.ok(left[2]?.type === "loss" && left[2].reason === "bad");
  assert.deepEqual([uploader.counters.duplicates, uploader.counters.rejected], [1, 1]);

  assert.ok((await uploader.step()) > 0); // too early: nothing is sent
  assert.equal(transport.batches.length, 1);
  clock.advance(delay);
  transport.answer = (batch) => verdicts(batch, "ok");
  assert.equal(await uploader.step(), 0);
});

test("A collector that rejects everything, losses too, is asked less and less often.", async () => {
  const { outbox, transport, uploader, clock, events } = await setup(3, { random: () => 0.999 });
  transport.answer = (batch) => verdicts(batch, "rejected");
  const delays = [];
  for (let i = 0; i < 4; i++) {
    delays.push(await uploader.step());
    clock.advance(delays.at(-1)! + 0.001);
  }
  assert.deepEqual(delays.map(Math.round), [0, 1, 2, 4]);
  assert.deepEqual(transport.batches.map((batch) => batch.length), [3, 3, 3, 3]);
  const left = await storedEvents(outbox);
  assert.ok(left.length === events.length && left.every(({ type }) => type === "loss"));

  transport.answer = (batch) => verdicts(batch, "ok");
  assert.equal(await uploader.step(), 0);
  assert.equal(outbox.counters().pending, 0);
});

test("A batch that is too large is halved, a single event is kept.", async () => {
  const { outbox, transport, uploader } = await setup(9);
  transport.answer = () => answer(413);
  const delays = [];
  for (let i = 0; i < 4; i++) {
    delays.push(await uploader.step());
  }
  assert.deepEqual(transport.batches.map((batch) => batch.length), [9, 4, 2, 1]);
  assert.deepEqual(delays.slice(0, 3), [0, 0, 0]);
  assert.ok(delays[3]! > 0);
  assert.equal(outbox.counters().pending, 9);
});

test("The device waits as long as the collector asks, at most five minutes.", async () => {
  for (const [asked, atLeast] of [["7", 7], ["9999", 300], ["soon", 0], ["-1", 0]] as const) {
    const { transport, uploader } = await setup();
    transport.answer = () => answer(503, { "retry-after": asked });
    const delay = await uploader.step();
    assert.ok(delay >= atLeast && delay <= atLeast + 1, `${asked}: ${delay}`);
    assert.match(uploader.counters.lastProblem, /^503: the collector is overloaded/);
  }
});

test("Waits double up to fifty minutes, and a success ends them.", async () => {
  const { transport, uploader, clock } = await setup(1, { random: () => 0.999 });
  transport.answer = () => answer(500);
  const delays = [];
  for (let i = 0; i < 14; i++) {
    delays.push(await uploader.step());
    clock.advance(delays.at(-1)! + 0.001);
  }
  assert.deepEqual(delays.slice(0, 4).map(Math.round), [1, 2, 4, 8]);
  assert.equal(Math.round(delays.at(-1)!), 2997);
  transport.answer = (batch) => verdicts(batch, "ok");
  assert.equal(await uploader.step(), 0);
  assert.equal(uploader.counters.lastProblem, "");
});

test("Without a network it waits for up to a minute, which counts as no failure.", async () => {
  const { transport, uploader, clock } = await setup();
  transport.answer = () => {
    throw new NoNetworkError("offline");
  };
  const delay = await uploader.step();
  assert.ok(delay >= 30 && delay <= 60);
  assert.equal(uploader.counters.lastStatus, null);
  clock.advance(1);
  assert.ok((await uploader.step()) > 28);
  uploader.resume(); // the network is back
  transport.answer = (batch) => verdicts(batch, "ok");
  assert.equal(await uploader.step(), 0);
});

test("An erased install erases everything and begins anew; a proxy's 410 does not.", async () => {
  const { outbox, transport, uploader, clock } = await setup();
  const { install } = outbox.identity;
  transport.answer = () => answer(410);
  clock.advance(await uploader.step());
  assert.equal(outbox.identity.install, install);
  transport.answer = () => answer(410, {}, `{"error":"install ${install} was erased"}`);
  await uploader.step();
  assert.notEqual(outbox.identity.install, install);
  assert.equal(outbox.counters().pending, 0);
  assert.equal(uploader.counters.erasures, 1);
});

test("A page of a captive portal is no answer of a collector.", async () => {
  for (const body of ["<html>", "null", '{"verdicts": 1}', '{"verdicts": [{"id": 1}]}']) {
    const { outbox, transport, uploader } = await setup();
    transport.answer = () => answer(200, {}, body);
    await uploader.step();
    assert.equal(outbox.counters().pending, 3);
    assert.match(uploader.counters.lastProblem, /not that of a collector/);
  }
});

test("The collector's request to rotate is passed on.", async () => {
  let asked = 0;
  const { outbox, transport, uploader } = await setup(1, { onRotate: () => (asked += 1) });
  transport.answer = (batch) => {
    const rows = batch.map(({ id }) => ({ id, verdict: "ok" }));
    return answer(200, {}, JSON.stringify({ verdicts: rows, rotate: [outbox.identity.install] }));
  };
  await uploader.step();
  assert.equal(asked, 1);
});

test("An app that allows no uploads, or whose hook throws, is asked again later.", async () => {
  for (const mayUpload of [() => false, () => assert.fail("no battery")]) {
    const { transport, uploader } = await setup(1, { mayUpload });
    assert.equal(await uploader.step(), 30);
    assert.equal(transport.batches.length, 0);
  }
});

test("Everything is sent within the time of a drain, or it says that it was not.", async () => {
  const { outbox, transport, uploader } = await setup(1200);
  assert.ok(await uploader.drain(10));
  assert.deepEqual(transport.batches.map((batch) => batch.length), [500, 500, 200]);
  await stored(outbox, new Events(outbox.identity.install, 5).observation());
  transport.answer = () => answer(500);
  assert.ok(!(await uploader.drain(0.5)));
});

test("At the end of a page what was marked as sent is posted again, and counts once.", async () => {
  const { outbox, transport, uploader } = await setup(0);
  const make = new Events(outbox.identity.install);
  await stored(outbox, make.observation());
  const collected = new Set<string>();
  const remember = (batch: Event[]) => {
    batch.forEach(({ id }) => collected.add(id));
    return verdicts(batch, collected.size > 1 ? "duplicate" : "ok");
  };
  transport.answer = remember;
  uploader.sendAtPageEnd(); // hidden
  uploader.sendAtPageEnd(); // and gone
  assert.deepEqual(transport.keepalive, [true]);
  assert.equal(transport.headers[0]!["content-encoding"], "zstd");
  await until(() => outbox.counters().pending === 0); // the page lived on, and read the answer
  assert.equal(collected.size, 1);

  await stored(outbox, ...Array.from({ length: 300 }, () => make.decision()));
  uploader.sendAtPageEnd();
  const sent = transport.batches[1]!;
  assert.ok(sent.length > 50 && sent.length < 300);
});

test("While uploads fail nothing is marked as sent: the end of a page posts nothing.", async () => {
  const { outbox, transport, uploader } = await setup();
  transport.answer = () => answer(500);
  await uploader.step();
  await outbox.acknowledge((await outbox.oldest(10, 1e6)).map(({ id }) => id));
  await stored(outbox, new Events(outbox.identity.install, 7).observation());
  uploader.sendAtPageEnd();
  assert.equal(transport.batches.length, 1);
});

test("In the background it sends what is stored later, when it is woken.", async () => {
  const { outbox, transport, uploader } = await setup(1);
  uploader.start(true);
  await until(() => outbox.counters().acknowledged === 1);
  await stored(outbox, new Events(outbox.identity.install, 7).observation());
  uploader.wake();
  await until(() => transport.batches.length === 2);
  await uploader.stop();
});
