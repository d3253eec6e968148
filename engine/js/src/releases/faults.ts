/** What went wrong with an update, in the words of those who run the app. */

import { UpdateError } from "../errors.js";

/** Returns the error of metadata that is past its date. */
export function stale(file: string, expired: number): UpdateError {
  return new UpdateError(
    "stale: the repository's metadata has expired; run `sanderling release refresh` on the" +
      ` server, or set this device's clock if that is wrong: ${file}:` +
      ` ${new Date(expired).toISOString()}`,
  );
}

/** Returns the error of a version below one that was seen before. */
export function rolledBack(file: string, expected: number, found: number): UpdateError {
  return new UpdateError(
    "the repository offers older metadata than this device has seen (a rollback); check the" +
      ` server or its mirror: ${file}: expected version ${expected} or later, found ${found}`,
  );
}

/** Returns the error of too few signatures by trusted keys. */
export function unsigned(role: string, expected: number, found: number): UpdateError {
  return new UpdateError(
    "the repository's metadata is not signed by the trusted keys; check the address and the" +
      ` root.json of the app: ${role}: expected ${expected} signatures, found ${found}`,
  );
}

/** Returns the error of a file that is not what was signed. */
export function altered(file: string, expected: unknown, found: unknown): UpdateError {
  return new UpdateError(
    `a file differs from its signed length or hash: ${file}: expected ${expected}, found ${found}`,
  );
}

/** Returns the error of a file that goes on after its limit. */
export function tooLong(file: string, limit: number): UpdateError {
  return new UpdateError(
    `a file is longer than its signed length: ${file}: expected at most ${limit} bytes`,
  );
}

/** Returns the error of metadata of another form. */
export function invalid(file: string, reason: string): UpdateError {
  return new UpdateError(`the repository's metadata is not valid: ${file}: ${reason}`);
}

/** Returns the error of a download that did not succeed. */
export function notDownloaded(url: string, reason: string): UpdateError {
  return new UpdateError(`a download failed: ${url}: ${reason}`);
}
