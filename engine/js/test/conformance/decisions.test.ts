import assert from "node:assert/strict";
import { test } from "node:test";

import { decide } from "../../src/decide.js";
import type { DecisionRecord } from "../../src/decision.js";
import { BootClock } from "../../src/events/bootClock.js";
import * as codec from "../../src/events/codec.js";
import { NO_EVENTS, nextChecksum } from "../../src/events/stateChecksum.js";
import type { Decision } from "../../src/events/wire.js";
import { loadKernels } from "../../src/kernels/loadKernels.js";
import { rulesOf, withBundleRules } from "../../src/rules/bundleRules.js";
import { blake2b } from "../../src/runtime/blake2b.js";
import { hex, unhex, utf8 } from "../../src/runtime/text.js";
import { EventFactory } from "../../src/users/eventFactory.js";
import type { UserState } from "../../src/users/types.js";
import { type Case, type CaseFile, loadCases } from "../support/conformance.js";
import { requestOf } from "../support/requests.js";
import { decided, scorersOf } from "../support/slates.js";

type File = CaseFile & { readonly common: Case };

const kernels = await loadKernels();

for (const name of ["slates-sequential", "slates-schemes", "slates-requests"]) {
  const file = loadCases(name) as File;

  test(`Events of ${name} have Python's bytes, marginals left out.`, async () => {
    const scorers = await scorersOf(file, kernels);
    const { state_checksum: checksum, state_events: events } = file.common;
    let compared = 0;
    for (const each of file.cases.filter(({ slate }) => "event" in slate)) {
      const scorer = scorers.get(each["bundle"])!;
      const request = withBundleRules(rulesOf(scorer.bundle), requestOf(each["request"]));
      const event = eventOf(file, decided(file, each, scorer, request), checksum, events);
      const slate = event.slate.map((slot) => ({ ...slot, marginal: null }));
      const line = codec.encode({ ...event, slate });
      assert.equal(hex(blake2b(utf8(line), 8)), each["slate"].event, JSON.stringify(each) + line);
      compared += 1;
    }
    assert.ok(compared > 500);
  });
}

test("From a user's events to the line of the decision every byte is Python's.", async () => {
  const file = loadCases("read-path") as File;
  const scorers = await scorersOf(file, kernels);
  for (const each of file.cases) {
    const scorer = scorers.get(each["bundle"])!;
    let state = scorer.userModel.initialState();
    let checksum = NO_EVENTS;
    for (const [item, kind] of each["events"]) {
      const row = scorer.find(item);
      checksum = nextChecksum(checksum, item, kind);
      if (row !== null) state = scorer.userModel.step(state, scorer.vector(row), kind);
    }
    const vector = scorer.userModel.userVector(state);
    const subject = { vector, pseudonym: file.common["user"] };
    const plan = { ...scorer.bundle.manifest.exploration, ...each["plan"] };
    const record = decide(scorer, subject, plan, requestOf(each["request"]), each["decision"]);
    const event = eventOf(file, record, checksum, each["events"].length);
    assert.equal(codec.encode(event), each["line"]);
  }
});

/** Returns the event of a decision with what all events of a file have in common. */
function eventOf(
  { common }: File,
  record: DecisionRecord,
  checksum: string,
  events: number,
): Decision {
  const { clock, install, seq, user } = common;
  const readings = [0, clock.mono];
  const frozen = { wallMs: () => clock.wall, monoMs: () => readings.shift()! };
  const boot = new BootClock(frozen, () => unhex(clock.boot));
  const policy = { shareContext: false, privacy: null, entropy: (n: number) => new Uint8Array(n) };
  const factory = new EventFactory({ install, secret: "0".repeat(64) }, boot, policy);
  const { space } = record.scorer;
  const state: UserState = {
    pseudonym: user,
    space,
    vector: record.vector,
    checksum,
    events,
    history: [],
  };
  return { ...factory.decision(record, state, null), seq };
}
