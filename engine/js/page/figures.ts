/** What the page tells of itself: latency, memory, events, whether the collector is reached. */

import type { Engine } from "../src/index.js";
import { element, part } from "./dom.js";

/** What the figures are made of. */
export interface Readings {
  /** Milliseconds of the engine's latest call. */
  readonly took: number;

  /** Milliseconds from the navigation to the first shelf. */
  readonly first: number;
}

interface MemoryOfPage {
  readonly memory?: { readonly usedJSHeapSize: number };
}

/** Shows the figures. */
export function showFigures(engine: Engine, readings: Readings): void {
  const { release, outbox } = engine.counters();
  const rows: [string, string][] = [["Last call", milliseconds(readings.took)]];
  rows.push(["First shelf after", milliseconds(readings.first)]);
  const { memory } = performance as MemoryOfPage;
  if (memory !== undefined) {
    rows.push(["Memory", megabytes(memory.usedJSHeapSize)]);
  }
  if (outbox !== null) {
    rows.push(["Events stored", outbox.stored.toLocaleString()]);
    rows.push(["Events sent", outbox.acknowledged.toLocaleString()]);
  }
  rows.push(["Release", String(release)]);
  const list = rows.flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]);
  part("figures").replaceChildren(...list);
}

/** Shows whether the collector is reached, and how many events wait for it. */
export function showConnection(engine: Engine): void {
  const { outbox, upload, storageFault } = engine.counters();
  const isOnline = navigator.onLine && !(upload?.lastProblem ?? "");
  const pending = upload === null ? 0 : (outbox?.pending ?? 0) + (outbox?.queued ?? 0);
  const waiting = pending === 0 ? "" : `, ${pending} waiting`;
  const unstored = storageFault === null ? "" : ", nothing is stored";
  const text = `${isOnline ? "Online" : "Offline"}${waiting}${unstored}`;
  const connection = part("connection");
  if (connection.textContent !== text) {
    connection.textContent = text; // a screen reader speaks changes only
  }
  connection.title = storageFault ?? upload?.lastProblem ?? "";
  connection.dataset["state"] = isOnline ? "online" : "offline";
}

function milliseconds(value: number): string {
  return value < 10 ? `${value.toFixed(2)} ms` : `${Math.round(value).toLocaleString()} ms`;
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}
