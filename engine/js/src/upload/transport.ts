/** Sends one batch over HTTP, and reads from the response how long to wait before the next. */

/** Bytes read of a response; one with verdicts for a batch of 500 events is smaller. */
const MAX_RESPONSE_BYTES = 2 ** 20;

/** The longest Retry-After that is followed: a faulty proxy must not silence a device for days. */
const MAX_RETRY_AFTER_S = 300;

const TIMEOUT_MS = 30_000;

/** The device is offline. Nothing was sent. */
export class NoNetworkError extends Error {
  override readonly name = "NoNetworkError";
}

/** A response of the collector, or of whatever answered in its place. */
export interface TransportResponse {
  readonly status: number;

  /** Returns a header, null where it is missing or the page may not read it. */
  readonly header: (name: string) => string | null;
  readonly body: string;
}

/** Sends batches to the collector. */
export interface Transport {
  /**
   * Sends one batch and returns the response; with `keepalive` also after the end of the page.
   *
   * Throws `NoNetworkError` when the device is offline, and another error when there is no complete
   * response for any other reason.
   */
  post(
    body: Uint8Array,
    headers: Readonly<Record<string, string>>,
    keepalive: boolean,
  ): Promise<TransportResponse>;
}

/**
 * Posts to `url` + "/events" by `fetch`, with a bearer token if there is one.
 *
 * Redirects are not followed, and no cookies are sent. White space around the token is dropped:
 * files often end in a line end. Throws `RangeError` for a URL or a token that could never be sent.
 */
export class FetchTransport implements Transport {
  readonly #url: string;
  readonly #token: string | null;

  constructor(url: string, token: string | null = null) {
    this.#url = `${checkedUrl(url).replace(/\/+$/, "")}/events`;
    this.#token = token === null ? null : token.trim();
    if (this.#token !== null && !/^[!-~]+$/.test(this.#token)) {
      throw new RangeError("token: expected printable ASCII characters, found others, or none");
    }
  }

  async post(
    body: Uint8Array,
    headers: Readonly<Record<string, string>>,
    keepalive: boolean,
  ): Promise<TransportResponse> {
    if (globalThis.navigator?.onLine === false) {
      throw new NoNetworkError(`${this.#url}: the device is offline`);
    }
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), TIMEOUT_MS);
    const authorization = this.#token === null ? {} : { authorization: `Bearer ${this.#token}` };
    try {
      const response = await fetch(this.#url, {
        method: "POST",
        body: body as BodyInit,
        headers: { ...headers, ...authorization },
        keepalive,
        redirect: "manual",
        credentials: "omit",
        cache: "no-store",
        referrerPolicy: "no-referrer",
        signal: controller.signal,
      });
      return {
        status: response.status,
        header: (name) => response.headers.get(name),
        body: await this.#read(response),
      };
    } finally {
      clearTimeout(timer);
    }
  }

  async #read(response: Response): Promise<string> {
    if (response.body == null) {
      return this.#checkLength(await response.text()); // React Native has no streams
    }
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    let text = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      text = this.#checkLength(text + decoder.decode(part.value, { stream: true }));
    }
    return text + decoder.decode();
  }

  #checkLength(text: string): string {
    if (text.length > MAX_RESPONSE_BYTES) {
      throw new Error(
        `${this.#url}: expected a response of at most ${MAX_RESPONSE_BYTES} bytes, found more;` +
          " check that the URL is that of a collector",
      );
    }
    return text;
  }
}

/** Returns the seconds, 0 to 300, that a response asks to wait; 0 where it gives no number. */
export function retryAfterS(response: TransportResponse): number {
  const value = (response.header("retry-after") ?? "").trim();
  return /^[0-9]+$/.test(value) ? Math.min(Number(value.slice(0, 9)), MAX_RETRY_AFTER_S) : 0;
}

function checkedUrl(url: string): string {
  let parts: URL;
  try {
    parts = new URL(url, globalThis.location?.href);
  } catch {
    throw new RangeError(urlFault(url));
  }
  if (parts.username !== "" || parts.password !== "") {
    throw new RangeError(
      "collector: expected a URL without a user name and a password, found one with them;" +
        " pass a token instead",
    );
  }
  const isHttp = parts.protocol === "http:" || parts.protocol === "https:";
  if (!isHttp || parts.search !== "" || parts.hash !== "") {
    throw new RangeError(urlFault(url));
  }
  return parts.href;
}

function urlFault(url: string): string {
  return `collector: expected a URL such as https://rewards.example/v1, found ${url}`;
}
