/** Rows and changes for tests of storages, and what every storage must do. */

import assert from "node:assert/strict";

import type { EventRow, OutboxStorage, StoredChanges } from "../../src/outbox/storage.js";

const HEADER = { install: "a".repeat(32), secret: "5".repeat(64), seq: 0, sentSeq: 0 };

/** Returns a row of a number. */
export function row(seq: number, line = `{"seq":${seq}}`): EventRow {
  return { seq, id: `id-${seq}`, type: "observation", decision: null, level: 0, line };
}

/** Returns changes that are durable and change nothing but what is given. */
export function changes(fields: Partial<StoredChanges> = {}): StoredChanges {
  const nothing = { clear: false, remove: [], put: [], states: new Map(), durable: true };
  return { header: HEADER, ...nothing, ...fields };
}

/** Asserts that what is committed is there when the storage is opened again. */
export async function checkCommits(open: () => Promise<OutboxStorage>): Promise<void> {
  let storage = await open();
  assert.deepEqual((await storage.load()).header, null);
  const states = new Map([["a", "1"], ["b", "☂"]]);
  await storage.commit(changes({ put: [row(1), row(2), row(3)], states }));
  const later = { ...HEADER, seq: 4, sentSeq: 2 };
  const changed = new Map([["a", null], ["c", ""]]);
  await storage.commit(changes({ header: later, remove: [2], put: [row(4)], states: changed }));
  await storage.commit(changes({ header: later, put: [row(3, "other")], durable: false }));
  await storage.close();

  storage = await open();
  const found = await storage.load();
  assert.deepEqual(found.header, later);
  const bySeq = [...found.rows].sort((a, b) => a.seq - b.seq);
  assert.deepEqual(bySeq, [row(1), row(3, "other"), row(4)]);
  assert.deepEqual(found.states, new Map([["b", "☂"], ["c", ""]]));
  assert.equal(found.wasDamaged, false);

  await storage.commit(changes({ clear: true, put: [row(9)] }));
  await storage.scrub();
  await storage.close();
  storage = await open();
  const cleared = await storage.load();
  assert.deepEqual([cleared.rows, cleared.states.size], [[row(9)], 0]);
  await storage.close();
}
