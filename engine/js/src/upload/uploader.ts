/**
 * Sends stored events to the collector: oldest first, at least once, retried without limit.
 *
 * Only events that the collector's response names are deleted from the outbox.
 */

import { StorageError, withCause } from "../errors.js";
import { BATCH_RESPONSE_SPEC, type BatchResponse, type EventVerdict } from "../events/wire.js";
import type { Outbox } from "../outbox/outbox.js";
import type { EventRow } from "../outbox/storage.js";
import type { Clock } from "../runtime/clock.js";
import { checked } from "../runtime/structs.js";
import { Backoff } from "./backoff.js";
import { type BatchBody, compressed, FRAME_BYTES, joined, zstdFrame } from "./batchBody.js";
import { meaning, needsAction } from "./status.js";
import {
  NoNetworkError,
  retryAfterS,
  type Transport,
  type TransportResponse,
} from "./transport.js";

/** The poll interval of an empty outbox, and of `mayUpload`. */
const IDLE_S = 30;

/** Events in a batch, at most. */
const MAX_EVENTS = 500;

/** Bytes of a batch before compression, at most; a single event may be larger. */
const MAX_BYTES = 2 ** 20;

/** Bytes of all bodies that browsers send after the end of a page. */
const KEEPALIVE_BYTES = 64 * 1024;

/** How long `drain` waits before it looks again for events that are on their way to the storage. */
const DRAIN_POLL_S = 0.01;

/** The verdicts that this version handles; an event with any other is sent again. */
const VERDICTS = new Set(["ok", "duplicate", "rejected"]);

/** The hooks of the app and the engine. */
export interface UploadOptions {
  /** Called before each batch; false waits. One that throws counts as false. */
  readonly mayUpload: () => boolean;

  /** Called when everything that was stored has been acknowledged. */
  readonly onEmpty: () => Promise<void>;

  /** Called when the collector asks this install to take a new identity. */
  readonly onRotate: () => void;
  readonly clock: Clock;

  /** Returns a number in [0, 1). */
  readonly random: () => number;
}

/** What has happened since the engine was opened. */
export interface UploadCounters {
  /** Batches that were posted, with or without success. */
  attempts: number;

  /** Events that the collector had stored before. */
  duplicates: number;

  /** Events that the collector will never store; they are deleted and declared lost. */
  rejected: number;

  /** How often the collector responded that this install was erased. */
  erasures: number;

  /** How often the collector asked this install to take a new identity. */
  rotations: number;

  /** The HTTP status of the last attempt; null before the first, and where nothing answered. */
  lastStatus: number | null;

  /** Why the last attempt stored nothing, and what to do about it; empty where it did. */
  lastProblem: string;
}

/** Sends what is in the outbox, in the background from `start` to `stop`. */
export class Uploader {
  readonly counters: UploadCounters = {
    attempts: 0,
    duplicates: 0,
    rejected: 0,
    erasures: 0,
    rotations: 0,
    lastStatus: null,
    lastProblem: "",
  };
  readonly #outbox: Outbox;
  readonly #transport: Transport;
  readonly #options: UploadOptions;
  readonly #backoff: Backoff;
  #maxEvents = MAX_EVENTS; // less after a batch that was too large
  #notBeforeMs = 0;
  #foundEmpty = false; // whether the last step found nothing to send
  readonly #warned = new Set<number>(); // statuses that were logged since the last success
  readonly #underWay = new Set<string>(); // events in posts that outlive the page
  #step: Promise<number> | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isStopped = true;

  constructor(outbox: Outbox, transport: Transport, options: UploadOptions) {
    this.#outbox = outbox;
    this.#transport = transport;
    this.#options = options;
    this.#backoff = new Backoff(options.random);
    this.#notBeforeMs = options.clock.monoMs();
    this.#outbox.marksAsSent = true;
  }

  /** Begins to send in the background; `isPage` tells that this process is a page. */
  start(isPage: boolean): void {
    this.#isStopped = false;
    this.#schedule(this.#backoff.startDelayS(isPage));
  }

  /** Looks for new events now; a backoff is still honoured. */
  wake(): void {
    if (!this.#isStopped && this.#step === null) {
      this.#schedule(0);
    }
  }

  /** Ends the wait for a network: it is back. */
  resume(): void {
    if (this.counters.lastStatus === null) {
      this.#notBeforeMs = this.#options.clock.monoMs();
      this.wake();
    }
  }

  /** Ends sending in the background, after the step that is under way. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    await this.#step;
  }

  /**
   * Sends at most one batch.
   *
   * Returns the seconds to wait before the next step, 0 when there is more to send. A step that
   * comes too early sends nothing and returns what is left to wait.
   */
  step(): Promise<number> {
    this.#step ??= this.#takeStep().finally(() => (this.#step = null));
    return this.#step;
  }

  /**
   * Steps until the outbox is empty or so many seconds have passed; returns whether it is empty.
   *
   * Gives up at once when the next attempt is due only after the deadline.
   */
  async drain(deadlineS: number): Promise<boolean> {
    const endMs = performance.now() + deadlineS * 1000;
    for (;;) {
      const { queued } = this.#outbox.counters();
      const delayS = await this.step();
      if (this.#foundEmpty && queued === 0) {
        return true;
      }
      const pauseMs = (this.#foundEmpty ? DRAIN_POLL_S : delayS) * 1000;
      if (performance.now() + pauseMs >= endMs) {
        return false;
      }
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  }

  /**
   * Posts the oldest events in a way that outlives the page, without waiting for anything.
   *
   * They stay stored until a response names them. If that never comes, they are sent again when the
   * engine is opened next, and the collector knows them by their ids.
   */
  sendAtPageEnd(): void {
    const maxBytes = KEEPALIVE_BYTES - FRAME_BYTES - MAX_EVENTS; // a line end after each
    const stored = this.#outbox.sentAlready(this.#maxEvents, maxBytes);
    // A page that ends is hidden first: both are reported, one after the other.
    const rows = stored.filter(({ id }) => !this.#underWay.has(id));
    if (rows.length > 0 && this.#mayUpload()) {
      // Not compressed: that would end after the page has.
      const body = zstdFrame(joined(rows.map((row) => row.line)));
      rows.forEach(({ id }) => this.#underWay.add(id));
      void this.#post({ body, encoding: "zstd" }, true)
        .then((response) => this.#apply(rows, response))
        .catch(() => {})
        .finally(() => rows.forEach(({ id }) => this.#underWay.delete(id)));
    }
  }

  #schedule(delayS: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#run(), delayS * 1000);
    // An engine that was not closed must not keep a process of Node alive.
    (this.#timer as { unref?: () => void }).unref?.();
  }

  async #run(): Promise<void> {
    const delayS = await this.step();
    if (!this.#isStopped) {
      this.#schedule(delayS);
    }
  }

  async #takeStep(): Promise<number> {
    this.#foundEmpty = false;
    const waitMs = this.#notBeforeMs - this.#options.clock.monoMs();
    if (waitMs > 0) {
      return waitMs / 1000;
    }
    if (!this.#mayUpload()) {
      return IDLE_S;
    }
    try {
      const delayS = await this.#outbox.exclusively(() => this.#sendOldest());
      return delayS ?? IDLE_S; // another tab uploads, this tab's events too
    } catch (error) {
      if (error instanceof NoNetworkError) {
        this.#noteProblem(null, error.message);
        return this.#pause(this.#backoff.offlineDelayS());
      }
      if (!(error instanceof StorageError)) { // `status` tells about the storage
        this.#noteProblem(null, `no answer of the collector: ${withCause(error)}`);
      }
      return this.#backOff();
    }
  }

  async #sendOldest(): Promise<number> {
    const maxBytes = Math.min(MAX_BYTES, this.#outbox.maxBatchBytes);
    const batch = await this.#outbox.oldest(this.#maxEvents, maxBytes);
    this.#foundEmpty = batch.length === 0;
    if (batch.length === 0) {
      await this.#options.onEmpty();
      return IDLE_S;
    }
    this.counters.attempts += 1;
    const response = await this.#post(await compressed(batch.map((row) => row.line)), false);
    return this.#apply(batch, response);
  }

  #post({ body, encoding }: BatchBody, keepalive: boolean): Promise<TransportResponse> {
    const headers = {
      "content-type": "application/x-ndjson",
      "content-encoding": encoding,
      // The time of this attempt by the device's clock: the collector corrects the events' times
      // by the difference to its own.
      "sent-at": String(this.#options.clock.wallMs()),
    };
    return this.#transport.post(body, headers, keepalive);
  }

  async #apply(batch: readonly EventRow[], response: TransportResponse): Promise<number> {
    if (response.status === 200) {
      return this.#applyVerdicts(batch, response);
    }
    // A proxy's own 410 does not name the install.
    if (response.status === 410 && response.body.includes(this.#outbox.identity.install)) {
      await this.#outbox.resetIdentity();
      this.counters.erasures += 1;
      return this.#backOff();
    }
    // Halve the batch, also where a proxy answered: its limit may be lower than the collector's.
    if (response.status === 413 && batch.length > 1) {
      this.#maxEvents = Math.floor(batch.length / 2);
      return 0;
    }
    return this.#refused(response);
  }

  /** Deletes the events that are stored or rejected, keeps the rest. */
  async #applyVerdicts(batch: readonly EventRow[], response: TransportResponse): Promise<number> {
    const decoded = decodeResponse(response.body);
    const sent = new Set(batch.map((row) => row.id));
    const verdicts = new Map<string, EventVerdict>();
    for (const verdict of decoded.verdicts) {
      if (sent.has(verdict.id) && VERDICTS.has(verdict.verdict)) {
        verdicts.set(verdict.id, verdict);
      }
    }
    if (verdicts.size === 0) {
      return this.#refused(response);
    }
    const all = [...verdicts.values()];
    const rejected = all.filter(({ verdict }) => verdict === "rejected");
    const stored = all.filter(({ verdict }) => verdict !== "rejected");
    await this.#outbox.acknowledge(stored.map(({ id }) => id));
    for (const { id, reason } of rejected) {
      await this.#outbox.reject(id, reason || "unknown");
    }
    this.counters.duplicates += stored.filter(({ verdict }) => verdict === "duplicate").length;
    this.counters.rejected += rejected.length;
    // A rejected loss leaves another one: a collector that rejects them all must not be asked
    // without a pause.
    const isStuck = stored.length === 0 && batch.every(({ type }) => type === "loss");
    this.#noteVerdicts(response.status, isStuck);

    if (decoded.rotate.includes(this.#outbox.identity.install)) {
      this.counters.rotations += 1;
      this.#options.onRotate();
    }
    const mustWait = isStuck || verdicts.size < batch.length;
    return mustWait ? this.#backOff(retryAfterS(response)) : 0;
  }

  #noteVerdicts(status: number, isStuck: boolean): void {
    this.#maxEvents = Math.min(MAX_EVENTS, this.#maxEvents + 1);
    if (!isStuck) {
      this.#backoff.reset();
    }
    this.counters.lastStatus = status;
    this.counters.lastProblem = "";
    this.#warned.clear();
    this.#outbox.marksAsSent = true;
  }

  #refused(response: TransportResponse): number {
    this.#noteProblem(response.status, meaning(response));
    return this.#backOff(retryAfterS(response));
  }

  /** Puts a problem into the counters; warns of one that somebody must solve, once. */
  #noteProblem(status: number | null, problem: string): void {
    this.counters.lastStatus = status;
    this.counters.lastProblem = problem;
    this.#outbox.marksAsSent = false; // what waits may have to be shed
    if (status !== null && needsAction(status) && !this.#warned.has(status)) {
      this.#warned.add(status);
      console.warn(`sanderling: events are not uploaded, and stay stored: ${problem}`);
    }
  }

  #backOff(atLeastS = 0): number {
    return this.#pause(this.#backoff.failureDelayS(atLeastS));
  }

  #pause(delayS: number): number {
    this.#notBeforeMs = this.#options.clock.monoMs() + Math.round(delayS * 1000);
    return delayS;
  }

  #mayUpload(): boolean {
    try {
      return this.#options.mayUpload();
    } catch (error) {
      console.warn(`sanderling: mayUpload threw ${String(error)}; taken for false`);
      return false;
    }
  }
}

/** Returns the response of a collector; one without verdicts for the page of a captive portal. */
function decodeResponse(body: string): BatchResponse {
  try {
    return checked(BATCH_RESPONSE_SPEC, JSON.parse(body)) as BatchResponse;
  } catch {
    return { verdicts: [], rotate: [] };
  }
}
