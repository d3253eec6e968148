import assert from "node:assert/strict";
import { test } from "node:test";

import { FetchSource } from "../src/bundle/source.js";
import { withCause } from "../src/errors.js";
import { Engine, type EngineOptions, FileStorage, FolderSource } from "../src/node.js";
import { TINY } from "./support/bundles.js";
import { FlakyStorage } from "./support/fakes.js";

/** Types are no help in JavaScript: what its callers pass by mistake. */
type Anything = any;

/** Opens an engine as a caller without types would. */
function open(source: unknown, options: unknown = {}): Promise<Engine> {
  return Engine.open(source as FolderSource, options as EngineOptions);
}

function answering(body: string, status = 200): FetchSource {
  return new FetchSource("https://shop.example/bundle/", {}, async () =>
    new Response(body, { status }));
}

test("What is no source is named, whatever it is.", async () => {
  for (const [source, found] of [[undefined, "undefined"], [null, "null"], [{}, "object"]]) {
    await assert.rejects(open(source), {
      name: "TypeError",
      message: "source: expected the URL of the bundle's folder, or a source such as" +
        ` FolderSource, found ${found}`,
    });
  }
});

test("A forgotten await is called a promise.", async () => {
  const pending = Promise.resolve();
  await assert.rejects(open(TINY, { state: pending }), /^TypeError: state: .+ a promise: await it/);
  const engine = await open(TINY);
  const slate = engine.recommend({ user: "ada" });
  await assert.rejects(
    engine.recommend({ user: "ada", after: slate as Anything }),
    /^TypeError: after: expected what `recommend` returned, found a promise: await it first$/,
  );
  await assert.rejects(engine.reward(slate as Anything, "moby-dick", 1), /found a promise: await/);
});

test("An attribute may be called `then`: what has one is no promise.", async () => {
  const engine = await open(TINY);
  await engine.upsertItems([{ id: "new", text: "A quay", then: "fog" }]);
  const [item] = await engine.recommend({ user: "ada", among: ["new"], where: { then: "fog" } });
  assert.equal(item!.attributes["then"], "fog");
  await engine.setAttributes({ emma: { then: "rain" } });
  assert.equal((await engine.recommend({ user: "ada", atMost: { then: 1 } })).length, 10);
});

test("A web page in the place of a manifest is called so, with the address to check.", async () => {
  await assert.rejects(open(answering("<!doctype html><title>Shop</title>")), {
    name: "BundleError",
    message: /^https:.+manifest.json: expected JSON, found a web page: .+ URL/,
  });
});

test("A relative URL outside a page is answered with what to pass instead.", async () => {
  for (const url of ["bundle", "/bundle/", new URL("file:///srv/bundle/")]) {
    await assert.rejects(open(url), /^BundleError: .+; outside a page give .+new FolderSource\(/);
  }
});

test("A folder that is no path is the caller's error.", async () => {
  assert.throws(() => new FolderSource(undefined as Anything), /^TypeError: folder: expected a/);
  await assert.rejects(FileStorage.open(new URL("file:///srv/") as Anything), /fileURLToPath/);
});

test("A name of a database in Node is answered with the storage to use.", async (t) => {
  t.mock.method(console, "error", () => {});
  const engine = await open(TINY, { state: "state/" });
  assert.match(engine.storageFault!, /in Node give a folder: state: await FileStorage.open/);
  await engine.close();
});

test("Kernels and encoders of a wrong type are refused before anything is opened.", async () => {
  await assert.rejects(open(TINY, { kernels: "plain" }), /^TypeError: kernels: .+found "plain"/);
  await assert.rejects(open(TINY, { encoder: true }), /^TypeError: encoder: expected a function/);
});

test("Rewards that are no pairs, and items that are missing, are named once.", async () => {
  const engine = await open(TINY);
  const slate = await engine.recommend({ user: "ada" });
  const { id } = slate.items[0]!;
  for (const [values, found] of [[[id], "string"], [[null], "null"]] as const) {
    await assert.rejects(engine.rewardAll(slate, values as Anything), {
      name: "TypeError",
      message: `values: expected pairs such as [slate.items[0], 1], found ${found} among them`,
    });
  }
  const missing = (slate as Anything)[0];
  await assert.rejects(engine.reward(slate, missing, 1), /or its id, found undefined$/);
  await assert.rejects(engine.recommend({ user: "ada", k: NaN }), /found number NaN$/);
});

test("An error's cause is told where it has one.", () => {
  const refused = new Error("connect ECONNREFUSED 127.0.0.1:1");
  const failed = new TypeError("fetch failed", { cause: refused });
  assert.equal(withCause(failed), "TypeError: fetch failed (connect ECONNREFUSED 127.0.0.1:1)");
  const several = Object.assign(new AggregateError([]), { code: "ECONNREFUSED" });
  assert.equal(withCause(new Error("no", { cause: several })), "Error: no (ECONNREFUSED)");
  assert.equal(withCause("odd"), "odd");
});

test("A closed engine recommends, and says that nothing is stored any more.", async (t) => {
  const warn = t.mock.method(console, "warn", () => {});
  const engine = await open(TINY, { state: new FlakyStorage() });
  const slate = await engine.recommend({ user: "ada" });
  assert.equal(engine.storageFault, null);
  await engine.close();

  assert.equal(engine.storageFault, "the outbox is closed");
  const receipt = await engine.reward(slate, slate.items[0]!, 1);
  assert.deepEqual([receipt.stored, receipt.reason], [false, "not stored: the outbox is closed"]);
  assert.equal(warn.mock.callCount(), 0);
  assert.equal((await engine.recommend({ user: "ada" })).length, slate.length);
  await engine.observe("ada", slate.items[0]!.id);
  const warnings = warn.mock.calls.map((call) => String(call.arguments[0]));
  assert.deepEqual(warnings, [
    "sanderling: not stored: the outbox is closed; open another engine",
  ]);
  assert.equal(engine.counters().outbox?.lost["closed"], 2);
});
