/** Fakes for tests: a clock that is set by hand, entropy from a seed, events, and a transport. */

import { decode } from "../../src/events/codec.js";
import type { Decision, Event, Observation, Outcome } from "../../src/events/wire.js";
import { MemoryStorage } from "../../src/outbox/memoryStorage.js";
import { Outbox } from "../../src/outbox/outbox.js";
import type { OutboxStorage, StoredChanges } from "../../src/outbox/storage.js";
import type { Clock, Entropy } from "../../src/runtime/clock.js";
import { hex } from "../../src/runtime/text.js";
import type { Transport, TransportResponse } from "../../src/upload/transport.js";

/** A clock that stands still. */
export class FakeClock implements Clock {
  constructor(
    public wall = 1_750_000_000_000,
    public mono = 5_000,
  ) {}

  wallMs(): number {
    return this.wall;
  }

  monoMs(): number {
    return this.mono;
  }

  advance(seconds: number): void {
    this.wall += Math.round(seconds * 1000);
    this.mono += Math.round(seconds * 1000);
  }
}

/** Returns numbers in [0, 1) from a seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Returns bytes from a seed. */
export function fakeEntropy(seed = 0): Entropy {
  const random = seeded(seed);
  return (bytes) => Uint8Array.from({ length: bytes }, () => Math.floor(random() * 256));
}

/** Makes events of one install. */
export class Events {
  readonly #entropy: Entropy;

  constructor(
    public install: string,
    seed = 99,
  ) {
    this.#entropy = fakeEntropy(seed);
  }

  #common(): Pick<Decision, "id" | "install" | "seq" | "user" | "clock"> {
    const clock = { wall: 1_750_000_000_000, mono: 5_000, boot: "b".repeat(32) };
    const id = hex(this.#entropy(16));
    return { id, install: this.install, seq: 0, user: "c".repeat(32), clock };
  }

  decision(fields: Partial<Decision> = {}): Decision {
    return {
      type: "decision",
      ...this.#common(),
      release: 3,
      scheme: "sequential",
      epsilon: 0.1,
      pool: 50,
      eligible: 200,
      slate: [
        { item: "red", rank: 0, explored: false, conditional: 0.9, marginal: 0.9 },
        { item: "blue", rank: 3, explored: true, conditional: 0.05, marginal: 0.04 },
      ],
      state_checksum: "d".repeat(32),
      state_events: 4,
      context: null,
      pass_probability: 1,
      ...fields,
    };
  }

  outcome(decision: Decision, fields: Partial<Outcome> = {}): Outcome {
    return {
      type: "outcome",
      ...this.#common(),
      decision: decision.id,
      slot: 0,
      item: decision.slate[0]!.item,
      kind: "click",
      value: 1,
      updates_state: true,
      ...fields,
    };
  }

  observation(fields: Partial<Observation> = {}): Observation {
    return { type: "observation", ...this.#common(), item: "red", kind: "view", ...fields };
  }
}

/** Memory whose commits fail as `fail` says: it is called before each. */
export class FlakyStorage extends MemoryStorage {
  fail: (changes: StoredChanges) => void = () => {};

  constructor() {
    super("");
  }

  override async commit(changes: StoredChanges): Promise<void> {
    this.fail(changes);
    await super.commit(changes);
  }
}

/** Opens an outbox with fakes. */
export function openOutbox(storage: OutboxStorage, limitBytes = 2 ** 23): Promise<Outbox> {
  return Outbox.open(storage, { limitBytes, clock: new FakeClock(), entropy: fakeEntropy(1) });
}

/** Puts events and waits until they are stored. */
export function stored(outbox: Outbox, ...events: Event[]): Promise<void> {
  return outbox.submit(() => ({ events, states: new Map() }));
}

/** Returns all that is stored, as events. */
export async function storedEvents(outbox: Outbox): Promise<Event[]> {
  return (await outbox.oldest(1e6, 1e9)).map((row) => decode(row.line));
}

/** Returns highest seq − distinct seqs − declared losses: 0 for a complete install. */
export function missing(events: readonly Event[]): number {
  const seqs = new Set(events.map((event) => event.seq));
  let declared = 0;
  for (const event of events) {
    if (event.type === "loss") {
      const sent = event.lost_seqs ?? [];
      sent.forEach((seq) => seqs.add(seq));
      declared += event.decisions + event.outcomes + event.observations - sent.length;
    }
  }
  return Math.max(0, ...seqs) - seqs.size - declared;
}

/** Answers with what `answer` returns or throws; records the events and headers of each batch. */
export class FakeTransport implements Transport {
  readonly batches: Event[][] = [];
  readonly headers: Readonly<Record<string, string>>[] = [];
  readonly keepalive: boolean[] = [];

  constructor(public answer: (events: Event[]) => TransportResponse = (e) => verdicts(e, "ok")) {}

  async post(
    body: Uint8Array,
    headers: Readonly<Record<string, string>>,
    keepalive: boolean,
  ): Promise<TransportResponse> {
    const isGzip = headers["content-encoding"] === "gzip";
    const text = isGzip ? await gunzipped(body) : rawFrame(body);
    this.batches.push(text.split("\n").map(decode));
    this.headers.push(headers);
    this.keepalive.push(keepalive);
    return this.answer(this.batches.at(-1)!);
  }
}

/** Returns the content of a zstd frame of raw blocks. */
export function rawFrame(frame: Uint8Array): string {
  const parts: Uint8Array[] = [];
  let at = 9;
  for (let isLast = false; !isLast; ) {
    const head = frame[at]! | (frame[at + 1]! << 8) | (frame[at + 2]! << 16);
    isLast = (head & 1) === 1;
    parts.push(frame.subarray(at + 3, at + 3 + (head >> 3)));
    at += 3 + (head >> 3);
  }
  return parts.map((part) => new TextDecoder().decode(part)).join("");
}

function gunzipped(body: Uint8Array): Promise<string> {
  const stream = new Blob([body as BlobPart]).stream();
  return new Response(stream.pipeThrough(new DecompressionStream("gzip"))).text();
}

/** Returns a response without a useful body. */
export function answer(
  status: number,
  headers: Readonly<Record<string, string>> = {},
  body = "<html>",
): TransportResponse {
  return { status, header: (name) => headers[name] ?? null, body };
}

/** Returns the same verdict for all events. */
export function verdicts(events: readonly Event[], verdict: string): TransportResponse {
  const reason = verdict === "rejected" ? "because" : "";
  const rows = events.map(({ id }) => ({ id, verdict, reason }));
  return answer(200, {}, JSON.stringify({ verdicts: rows }));
}

/** Waits until a condition holds; fails after ten seconds. */
export async function until(holds: () => boolean): Promise<void> {
  const end = Date.now() + 10_000;
  while (!holds()) {
    if (Date.now() > end) {
      throw new Error(`expected within 10 s: ${holds}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
