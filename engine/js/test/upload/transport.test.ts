import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";

import { zstdFrame } from "../../src/upload/batchBody.js";
import { FetchTransport, retryAfterS } from "../../src/upload/transport.js";
import { meaning, needsAction } from "../../src/upload/status.js";
import { answer, rawFrame } from "../support/fakes.js";

type Handler = (request: IncomingMessage, response: ServerResponse, body: Buffer) => void;

async function serve(handler: Handler): Promise<{ url: string; server: Server }> {
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => handler(request, response, Buffer.concat(parts)));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`, server };
}

test("A batch is posted with its headers and the token, and the answer is read.", async () => {
  const seen: unknown[] = [];
  const { url, server } = await serve((request, response, body) => {
    const { authorization, "sent-at": sentAt } = request.headers;
    seen.push(request.method, request.url, authorization, sentAt, body.toString());
    response.writeHead(503, { "retry-after": "7" }).end("busy ☂");
  });
  const transport = new FetchTransport(`${url}/`, "secret\n");
  const found = await transport.post(Buffer.from("lines"), { "sent-at": "5" }, false);
  assert.deepEqual(seen, ["POST", "/v1/events", "Bearer secret", "5", "lines"]);
  assert.deepEqual([found.status, found.body, retryAfterS(found)], [503, "busy ☂", 7]);
  server.close();
});

test("Redirects are not followed, and their meaning says so.", async () => {
  let requests = 0;
  const { url, server } = await serve((_, response) => {
    requests += 1;
    response.writeHead(302, { location: "/elsewhere" }).end();
  });
  const found = await new FetchTransport(url).post(Buffer.from(""), {}, false);
  assert.equal(requests, 1);
  assert.match(meaning(found), /^302: the URL of `collector` redirects to \/elsewhere/);
  server.close();
});

test("A response that is too large is refused, whatever it is.", async () => {
  const { url, server } = await serve((_, response) => response.end("x".repeat(2 ** 21)));
  const posted = new FetchTransport(url).post(Buffer.from(""), {}, false);
  await assert.rejects(posted, /at most 1048576 bytes, found more/);
  server.close();
});

test("A URL or a token that could never be sent is refused at once.", () => {
  for (const url of ["", "rewards", "ftp://x/v1", "https://x/v1?a=1", "https://a:b@x/v1"]) {
    assert.throws(() => new FetchTransport(url), /collector: expected a URL/, url);
  }
  for (const token of ["", " ", "a b", "ü"]) {
    assert.throws(() => new FetchTransport("https://x/v1", token), /token: expected printable/);
  }
});

test("Statuses that somebody must act on are told from those that end by themselves.", () => {
  assert.deepEqual([401, 404, 302, 0, 418].map(needsAction), [true, true, true, true, true]);
  assert.deepEqual([408, 413, 429, 500, 503].map(needsAction), [false, false, false, false, false]);
  assert.match(meaning(answer(401)), /check `token`/);
  assert.match(meaning(answer(418)), /refuses this batch/);
  assert.match(meaning(answer(599)), /fails; trying again later/);
});

test("A frame of zstd holds any content in blocks of at most 128 KiB.", () => {
  for (const length of [0, 1, 131_071, 131_072, 131_073, 400_000]) {
    const content = "x".repeat(length);
    assert.equal(rawFrame(zstdFrame(new TextEncoder().encode(content))), content);
  }
});
