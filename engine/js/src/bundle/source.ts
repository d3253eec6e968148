/** Where a bundle's files come from: a web server, memory, or (`node.ts`) a folder. */

import { BundleError, withCause } from "../errors.js";

/** The files of one bundle, read by name. */
export interface BundleSource {
  /** Names the bundle in errors: a URL or a path. */
  readonly name: string;

  /** Whether files may come from a cache, which may have kept old ones. */
  readonly mayBeStale?: boolean;

  /**
   * Returns a file's bytes, or null where there is none; throws `BundleError`.
   *
   * `isFresh` asks for the file itself, not for what a cache has kept.
   */
  read(name: string, isFresh?: boolean): Promise<Uint8Array | null>;

  /** Returns the lengths of all files by name, where that can be known without reading them. */
  list?(): Promise<ReadonlyMap<string, number>>;
}

/** What `FetchSource` needs of the platform's `fetch`. */
export type Fetch = (url: string, init?: RequestInit) => Promise<Response>;

/** The first byte of HTML and XML, with which no JSON begins. */
const MARKUP = 0x3c;

const NO_PAGE =
  "; outside a page give a whole URL such as https://shop.example/bundle/, or for a folder" +
  " new FolderSource(\"bundle\") of @sanderling/engine/node";

function isFetchable(url: string): boolean {
  return globalThis.location !== undefined || /^https?:/i.test(url);
}

/** A bundle's files under one URL. */
export class FetchSource implements BundleSource {
  readonly name: string;
  readonly mayBeStale = true;
  readonly #fetch: Fetch;

  /**
   * `url` is that of the folder; `init` goes to each `fetch`, such as headers of the app.
   *
   * A relative URL is relative to the page.
   */
  constructor(
    url: string | URL,
    readonly init: RequestInit = {},
    fetch: Fetch = (target, options) => globalThis.fetch(target, options),
  ) {
    this.name = String(url).replace(/\/+$/, "");
    this.#fetch = fetch;
  }

  async read(name: string, isFresh = false): Promise<Uint8Array | null> {
    const url = `${this.name}/${name}`;
    try {
      const init: RequestInit = isFresh ? { ...this.init, cache: "reload" } : this.init;
      const response = await this.#fetch(url, init);
      if (response.status === 404 || response.status === 410) {
        return null;
      }
      if (!response.ok) {
        throw new BundleError(`${url}: expected status 200, found ${response.status}`);
      }
      const data = new Uint8Array(await response.arrayBuffer());
      if (name.endsWith(".json") && data[0] === MARKUP) {
        throw new BundleError(
          `${url}: expected JSON, found a web page: the server answers so for paths that it does` +
            " not know; check the URL of the bundle's folder",
        );
      }
      return data;
    } catch (error) {
      if (error instanceof BundleError) {
        throw error;
      }
      const hint = isFetchable(this.name) ? "" : NO_PAGE;
      const reason = withCause(error);
      throw new BundleError(`${url}: expected a file that can be fetched: ${reason}${hint}`);
    }
  }
}

/** A bundle's files in memory. */
export class MemorySource implements BundleSource {
  constructor(
    readonly files: ReadonlyMap<string, Uint8Array>,
    readonly name = "memory",
  ) {}

  read(name: string): Promise<Uint8Array | null> {
    return Promise.resolve(this.files.get(name) ?? null);
  }

  list(): Promise<ReadonlyMap<string, number>> {
    return Promise.resolve(new Map(Array.from(this.files, ([name, data]) => [name, data.length])));
  }
}
