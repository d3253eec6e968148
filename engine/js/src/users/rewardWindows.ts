/**
 * Reward windows: a slot that was seen and not rewarded in time gets a default outcome, once, also
 * after a restart.
 *
 * A window ends a fixed time after its decision, by the device's wall clock. A wrong clock moves
 * the end and loses nothing: a later reward is still recorded, marked as late. A window that has
 * ended is not remembered.
 */

import { timeOf } from "../runtime/clock.js";

/** The prefix of the keys under which windows are stored. */
export const PREFIX = "seen:";

/** The version of the stored form. */
const VERSION = 1;

/** Open windows of an engine, to bound memory; the oldest are closed beyond. */
const MAX_OPEN = 10_000;

/** Windows closed in one call, because a public call of the engine waits for it. */
const MAX_CLOSED_AT_ONCE = 64;

/** The slots of one decision that were seen or rewarded. */
export interface OpenWindow {
  /** The user's pseudonym. */
  readonly user: string;

  /** When the window ends, in ms since 1970. */
  readonly endMs: number;

  /** By slot the item that waits for a reward, or "" where the outcome is known. */
  readonly slots: ReadonlyMap<number, string>;
}

/** A window that was just closed. */
export interface ClosedWindow {
  readonly decision: string;
  readonly user: string;

  /** The slots that were seen and have no reward, and their items. */
  readonly waiting: readonly (readonly [number, string])[];
}

/** The windows of an engine, oldest first. */
export class RewardWindows {
  readonly #lengthMs: number | null;
  readonly #open = new Map<string, OpenWindow>();
  #nextEndMs = Infinity;

  /**
   * `lengthS` is null for an engine that opens no windows, but may still hold some of an earlier
   * one; `stored` holds what earlier engines left, by key.
   */
  constructor(lengthS: number | null, stored: ReadonlyMap<string, string>) {
    this.#lengthMs = lengthS === null ? null : Math.floor(lengthS * 1000);
    for (const key of [...stored.keys()].sort()) {
      const window = parse(stored.get(key)!);
      if (window !== null) {
        this.#open.set(key.slice(PREFIX.length), window);
      }
    }
    this.#nextEndMs = this.#earliestEnd();
  }

  /** Returns whether the window of a decision has ended. */
  isOver(decision: string, nowMs: number): boolean {
    return nowMs > this.#endMs(decision);
  }

  /**
   * Lets slots, with their items, wait for rewards, except those that have one; returns what to
   * store, by key. Nothing after the end.
   */
  open(
    decision: string,
    user: string,
    slots: ReadonlyMap<number, string>,
    nowMs: number,
  ): [string, string][] {
    const endMs = this.#endMs(decision);
    if (endMs <= nowMs) {
      return [];
    }
    const present = this.#open.get(decision)?.slots ?? new Map();
    return this.#put(decision, { user, endMs, slots: new Map([...slots, ...present]) });
  }

  /**
   * Notes that slots have their reward: they do not wait any longer, nor when they are seen again;
   * returns what to store, by key. Nothing after the end.
   */
  settle(
    decision: string,
    user: string,
    slots: Iterable<number>,
    nowMs: number,
  ): [string, string][] {
    const isOpen = this.#open.has(decision);
    if (!isOpen && (this.#lengthMs === null || this.isOver(decision, nowMs))) {
      return [];
    }
    const present = this.#open.get(decision)?.slots ?? new Map();
    const known = Array.from(slots, (slot): [number, string] => [slot, ""]);
    const endMs = this.#endMs(decision);
    return this.#put(decision, { user, endMs, slots: new Map([...present, ...known]) });
  }

  /** Returns whether `closeEnded` may have something to close. */
  isDue(nowMs: number): boolean {
    return nowMs >= this.#nextEndMs || this.#open.size > MAX_OPEN;
  }

  /** Closes windows that have ended, some of many, and the oldest beyond `MAX_OPEN`. */
  closeEnded(nowMs: number): ClosedWindow[] {
    const ended = this.#decisions((window) => window.endMs <= nowMs);
    const beyond = [...this.#open.keys()].slice(0, Math.max(0, this.#open.size - MAX_OPEN));
    return this.#close(new Set([...ended, ...beyond]));
  }

  /** Closes windows that still wait for a reward before they end, some of many a call. */
  closeEarly(): ClosedWindow[] {
    return this.#close(this.#decisions(({ slots }) => [...slots.values()].some(Boolean)));
  }

  /** Drops the windows of a pseudonym; returns the keys under which they may be stored. */
  forget(user: string): string[] {
    const decisions = [...this.#open].filter(([, window]) => window.user === user);
    return decisions.map(([decision]) => {
      this.#open.delete(decision);
      return PREFIX + decision;
    });
  }

  /**
   * Returns when the window of a decision ends.
   *
   * An open window keeps the length with which it was opened; the time of the decision is in its id
   * (UUID 7).
   */
  #endMs(decision: string): number {
    const open = this.#open.get(decision);
    if (open !== undefined) {
      return open.endMs;
    }
    return this.#lengthMs === null ? Infinity : timeOf(decision) + this.#lengthMs;
  }

  #decisions(matches: (window: OpenWindow) => boolean): string[] {
    const found = [...this.#open].filter(([, window]) => matches(window));
    return found.slice(0, MAX_CLOSED_AT_ONCE).map(([decision]) => decision);
  }

  #put(decision: string, window: OpenWindow): [string, string][] {
    this.#open.set(decision, window);
    this.#nextEndMs = Math.min(this.#nextEndMs, window.endMs);
    const { user, endMs, slots } = window;
    return [[PREFIX + decision, JSON.stringify([VERSION, user, endMs, [...slots]])]];
  }

  #close(decisions: Iterable<string>): ClosedWindow[] {
    const closed = Array.from(decisions, (decision) => {
      const { user, slots } = this.#open.get(decision)!;
      this.#open.delete(decision);
      return { decision, user, waiting: [...slots].filter(([, item]) => item !== "") };
    });
    this.#nextEndMs = this.#earliestEnd();
    return closed;
  }

  #earliestEnd(): number {
    let earliest = Infinity;
    this.#open.forEach(({ endMs }) => (earliest = Math.min(earliest, endMs)));
    return earliest;
  }
}

function parse(stored: string): OpenWindow | null {
  try {
    const [version, user, endMs, slots] = JSON.parse(stored);
    return version === VERSION ? { user, endMs, slots: new Map(slots) } : null;
  } catch {
    return null;
  }
}
