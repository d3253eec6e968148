/** The errors that an app may see. Each says what was expected, what was found, and where. */

/** The base of every error raised on purpose by the engine. */
export class SanderlingError extends Error {
  override readonly name: string = "SanderlingError";
}

/** A bundle is missing, malformed, altered, or made for another version of the engine. */
export class BundleError extends SanderlingError {
  override readonly name = "BundleError";
}

/** An event or a batch violates the wire format. */
export class EventError extends SanderlingError {
  override readonly name: string = "EventError";
}

/** A batch is larger than the wire format allows; its halves may be small enough. */
export class BatchSizeError extends EventError {
  override readonly name = "BatchSizeError";
}

/** The state could not be opened, or a write did not become durable. */
export class StorageError extends SanderlingError {
  override readonly name = "StorageError";
}

/** A release could not be fetched, verified or installed; the previous one stays active. */
export class UpdateError extends SanderlingError {
  override readonly name = "UpdateError";
}

const MAX_SHOWN = 80;

/** Returns at most 80 characters of a wrong argument, for an error message. */
export function shown(value: unknown): string {
  if (typeof value === "bigint") {
    return value.toString().slice(0, MAX_SHOWN);
  }
  if (typeof value === "number") {
    return String(value); // JSON has no NaN
  }
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch {
    text = undefined; // a cycle, or a bigint inside
  }
  return (text ?? String(value)).slice(0, MAX_SHOWN);
}

/**
 * Returns what a wrong argument is: `null`, `array`, a promise whose `await` was forgotten, or what
 * `typeof` says.
 */
export function typeName(value: unknown): string {
  if (value === null) {
    return "null";
  }
  if (isPromise(value)) {
    return "a promise: await it first";
  }
  return Array.isArray(value) ? "array" : typeof value;
}

/** Returns whether a value is a promise, of whatever library. */
export function isPromise(value: unknown): boolean {
  // A catalog may have an attribute `then`, which is no function.
  const then = typeof value === "object" && value !== null && "then" in value ? value.then : null;
  return typeof then === "function";
}

/** Returns whether a value is a collection; a text, one of its letters, is none. */
export function isIterable(value: unknown): value is Iterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.iterator in value;
}

/** Returns an error in words, with its cause: `fetch` in Node says the reason only there. */
export function withCause(error: unknown): string {
  const cause = error instanceof Error ? error.cause : undefined;
  if (!(cause instanceof Error)) {
    return String(error);
  }
  // Where several addresses failed, the message is empty.
  const reason = cause.message || ((cause as { code?: unknown }).code ?? cause.name);
  return `${error} (${reason})`;
}
