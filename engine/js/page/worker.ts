/**
 * The service worker: the page and its bundle from the cache, so that they open without a network.
 *
 * `make page` writes the version and the list of files. Rewards do not pass through here: the
 * engine keeps and sends them itself.
 */

const VERSION = "development";
const FILES: readonly string[] = [];

const CACHE = `sanderling-${VERSION}`;
const BUNDLE = "sanderling-bundle";
const MANIFEST = "bundle/manifest.json";
const LATER: readonly string[] = ["encoder.onnx", "tokenizer.json", "golden.json"];
const PATIENCE_MS = 3000;

interface Extendable extends Event {
  waitUntil(done: Promise<unknown>): void;
}

interface Fetching extends Extendable {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
}

interface WorkerScope {
  readonly registration: { readonly scope: string };
  readonly clients: { claim(): Promise<void> };
  skipWaiting(): Promise<void>;
  addEventListener(name: "install" | "activate", listener: (event: Extendable) => void): void;
  addEventListener(name: "fetch", listener: (event: Fetching) => void): void;
}

const worker = globalThis as unknown as WorkerScope;

worker.addEventListener("install", (event) => {
  event.waitUntil(Promise.all([keepPage(), keepBundle()]).then(() => worker.skipWaiting()));
});

worker.addEventListener("activate", (event) => {
  const kept = [CACHE, BUNDLE];
  event.waitUntil(
    caches
      .keys()
      .then((names) => names.filter((name) => !kept.includes(name)))
      .then((old) => Promise.all(old.map((name) => caches.delete(name))))
      .then(() => worker.clients.claim()),
  );
});

worker.addEventListener("fetch", (event) => {
  const { request } = event;
  const path = request.url.replace(worker.registration.scope, "");
  if (request.method !== "GET" || path === request.url || path.startsWith("v1/")) {
    return;
  }
  if (path === "config.json") {
    event.respondWith(fromNetworkFirst(request, CACHE));
  } else if (path === MANIFEST) {
    event.respondWith(manifest(request));
  } else {
    event.respondWith(fromCacheFirst(request, path.startsWith("bundle/") ? BUNDLE : CACHE));
  }
});

async function keepPage(): Promise<void> {
  const cache = await caches.open(CACHE);
  await cache.addAll(FILES.map((file) => new Request(file, { cache: "no-cache" })));
}

/** Keeps the files that recommending needs; the text encoder comes with the first search. */
async function keepBundle(): Promise<void> {
  const cache = await caches.open(BUNDLE);
  const response = await fetch(MANIFEST, { cache: "no-cache" });
  const { files } = (await response.clone().json()) as { files: Record<string, unknown> };
  const names = Object.keys(files).filter((name) => !LATER.includes(name));
  await cache.addAll(names.map((name) => new Request(`bundle/${name}`, { cache: "no-cache" })));
  await cache.put(MANIFEST, response);
}

async function fromCacheFirst(request: Request, name: string): Promise<Response> {
  const cache = await caches.open(name);
  const kept = await cache.match(request, { ignoreSearch: request.mode === "navigate" });
  return kept ?? keep(cache, request, await fetch(request));
}

/** Returns the newest answer; what was kept where the network or the server fails. */
async function fromNetworkFirst(request: Request, name: string): Promise<Response> {
  const cache = await caches.open(name);
  const kept = await cache.match(request);
  try {
    const response = await fetch(request, { signal: AbortSignal.timeout(PATIENCE_MS) });
    if (response.ok || kept === undefined) {
      return await keep(cache, request, response);
    }
  } catch (error) {
    if (kept === undefined) {
      throw error;
    }
  }
  return kept;
}

/** Returns the newest manifest. Where it is another one, the files of the old bundle go. */
async function manifest(request: Request): Promise<Response> {
  const kept = await (await caches.open(BUNDLE)).match(request);
  const response = await fromNetworkFirst(request, BUNDLE);
  if (kept !== undefined && (await kept.text()) !== (await response.clone().text())) {
    await caches.delete(BUNDLE);
    await keep(await caches.open(BUNDLE), request, response);
  }
  return response;
}

async function keep(cache: Cache, request: Request, response: Response): Promise<Response> {
  if (response.ok) {
    await cache.put(request, response.clone());
  }
  return response;
}
