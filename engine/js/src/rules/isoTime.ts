/**
 * ISO 8601 texts as seconds since 1970, read as Python's `datetime.fromisoformat` reads them.
 *
 * JavaScript's own `Date.parse` takes a time without an offset as local time, keeps milliseconds
 * only, and accepts other forms.
 */

// Texts such as "20240501" are more often part numbers than dates, so that hyphens are needed.
const DATE = /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d:\d\d.*))?$/s;
const OFFSET = /[-+Z]/;
const DAY_S = 86_400;
const MAX_DIGITS = 6; // of a fraction, the rest of which is ignored

/** A time of day, or an offset, and whether something followed it. */
interface Clock {
  readonly hours: number;
  readonly minutes: number;
  readonly seconds: number;
  readonly micros: number;
  readonly hasRest: boolean;
}

/** Returns an ISO 8601 text in seconds since 1970, without an offset UTC; NaN for other text. */
export function secondsOf(text: string): number {
  const found = DATE.exec(text);
  if (found === null || text.includes("\n")) {
    return NaN;
  }
  const days = daysSince1970(Number(found[1]), Number(found[2]), Number(found[3]));
  const time = found[4] === undefined ? { seconds: 0, micros: 0 } : timeOf(found[4]);
  if (days === null || time === null) {
    return NaN;
  }
  const seconds = BigInt(days * DAY_S + time.seconds);
  return asDouble(seconds * 1_000_000n + BigInt(time.micros));
}

/** Returns the nearest double to a number of microseconds, in seconds. */
function asDouble(micros: bigint): number {
  const digits = (micros < 0n ? -micros : micros).toString().padStart(7, "0");
  const value = Number(`${digits.slice(0, -6)}.${digits.slice(-6)}`);
  return micros < 0n ? -value : value;
}

function daysSince1970(year: number, month: number, day: number): number | null {
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  const isValid =
    year >= 1 &&
    date.getUTCFullYear() === year &&
    date.getUTCMonth() === month - 1 &&
    date.getUTCDate() === day;
  return isValid ? date.getTime() / (1000 * DAY_S) : null;
}

/** Returns a time of day less its offset in seconds and microseconds, null for what is none. */
function timeOf(text: string): { seconds: number; micros: number } | null {
  const at = text.search(OFFSET);
  const time = clockOf(at < 0 ? text : text.slice(0, at), at < 0 ? "" : text[at]!);
  if (time === null || time.hours > 23 || time.minutes > 59 || time.seconds > 59) {
    return null;
  }
  const seconds = inSeconds(time);
  if (at < 0) {
    return time.hasRest ? null : { seconds, micros: time.micros };
  }
  if (text[at] === "Z") {
    return text.length === at + 1 ? { seconds, micros: time.micros } : null;
  }
  const offset = clockOf(text.slice(at + 1), "");
  if (offset === null || offset.hasRest) {
    return null;
  }
  const offsetS = inSeconds(offset);
  if (offsetS >= DAY_S) {
    return null;
  }
  const sign = text[at] === "-" ? -1 : 1;
  const offsetMicros = offsetS === 0 ? 0 : offset.micros;
  return { seconds: seconds - sign * offsetS, micros: time.micros - sign * offsetMicros };
}

function inSeconds(clock: Clock): number {
  return clock.hours * 3600 + clock.minutes * 60 + clock.seconds;
}

/**
 * Returns the parts of `HH[:MM[:SS[.ffffff]]]` or the same without colons, null for other text.
 *
 * This follows CPython's parser step by step, what it overlooks included: `next` is the character
 * behind the text, empty at the end.
 */
function clockOf(text: string, next: string): Clock | null {
  const parts = [0, 0, 0];
  let at = 0;
  let hasColons = true;
  for (let i = 0; i < 3; i++) {
    const digits = digitsAt(text, at, 2);
    if (digits === null) {
      return null;
    }
    parts[i] = digits;
    const follows = text[at + 2] ?? next;
    at += 3;
    if (follows > "\x7f") {
      return null; // several bytes, of which the parser takes the first for a separator
    }
    if (i === 0) {
      hasColons = follows === ":";
    }
    if (at >= text.length) {
      return clock(parts, 0, follows !== "");
    }
    if (hasColons && follows === ":") {
      continue;
    }
    if (follows === "." || follows === ",") {
      break;
    }
    if (hasColons) {
      return null;
    }
    at -= 1;
  }
  const count = Math.min(text.length - at, MAX_DIGITS);
  const micros = digitsAt(text, at, count);
  if (micros === null) {
    return null;
  }
  const rest = text.slice(at + count).replace(/^[0-9]+/, "");
  return clock(parts, micros * 10 ** (MAX_DIGITS - count), rest + next !== "");
}

function clock(parts: readonly number[], micros: number, hasRest: boolean): Clock {
  const [hours, minutes, seconds] = parts as [number, number, number];
  return { hours, minutes, seconds, micros, hasRest };
}

function digitsAt(text: string, at: number, count: number): number | null {
  const digits = text.slice(at, at + count);
  return digits.length === count && /^[0-9]+$/.test(digits) ? Number(digits) : null;
}
