/** Where the files of a release repository come from: a web server, or a transport of the app. */

import { notDownloaded, tooLong } from "./faults.js";

/** The files of a repository, by path: `metadata/timestamp.json`, `targets/releases/…`. */
export interface ReleaseSource {
  /** Names the repository in errors. */
  readonly name: string;

  /**
   * Returns the bytes of a file, or null where there is none.
   *
   * Reads no more than `limit` bytes and a little: throws `UpdateError` for a longer file, as for
   * every other failure, and stops when the signal says so.
   */
  read(path: string, limit: number, signal: AbortSignal): Promise<Uint8Array | null>;
}

/** A server that sends nothing for so long is given up. */
const STALLED_MS = 15_000;

/** A repository under one URL. */
export class FetchReleases implements ReleaseSource {
  readonly name: string;

  constructor(url: string | URL) {
    this.name = String(url).replace(/\/+$/, "");
  }

  async read(path: string, limit: number, signal: AbortSignal): Promise<Uint8Array | null> {
    const url = `${this.name}/${path}`;
    const stalled = new AbortController();
    const stop = (): void => stalled.abort(signal.reason);
    signal.addEventListener("abort", stop);
    const watch = new Watch(stalled);
    try {
      signal.throwIfAborted();
      // A cache between here and the server would hide newer metadata.
      const response = await fetch(url, { cache: "no-store", signal: stalled.signal });
      // Servers of object stores answer 403 for what is not there.
      if (response.status === 404 || response.status === 403) {
        await response.body?.cancel();
        return null;
      }
      if (!response.ok) {
        await response.body?.cancel();
        throw notDownloaded(url, `the server answered with status ${response.status}`);
      }
      return await readBody(url, response, limit, watch);
    } catch (error) {
      throw stalled.signal.aborted || error instanceof TypeError
        ? notDownloaded(url, reasonOf(stalled.signal.reason ?? error))
        : error;
    } finally {
      watch.end();
      signal.removeEventListener("abort", stop);
    }
  }
}

/** Aborts a download in which nothing happens any more. */
class Watch {
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly controller: AbortController) {
    this.restart();
  }

  restart(): void {
    this.end();
    const reason = new Error(`nothing was sent for ${STALLED_MS / 1000} s`);
    this.#timer = setTimeout(() => this.controller.abort(reason), STALLED_MS);
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}

async function readBody(
  url: string,
  response: Response,
  limit: number,
  watch: Watch,
): Promise<Uint8Array> {
  if (response.body === null) {
    return new Uint8Array(0);
  }
  const reader = response.body.getReader();
  const chunks: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) {
      break;
    }
    watch.restart();
    chunks.push(value);
    length += value.length;
    if (length > limit) {
      await reader.cancel();
      throw tooLong(url, limit);
    }
  }
  const data = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    data.set(chunk, at);
    at += chunk.length;
  }
  return data;
}

/** Returns in a few words why there was no answer; `fetch` hides it in the cause. */
function reasonOf(error: unknown): string {
  const cause = error instanceof TypeError ? error.cause ?? error : error;
  return cause instanceof Error ? cause.message || cause.name : String(cause);
}
