import assert from "node:assert/strict";
import { test } from "node:test";

import { MemorySource } from "../../src/bundle/source.js";
import { Engine } from "../../src/engine.js";
import { BundleError, StorageError, UpdateError } from "../../src/errors.js";
import type {
  Int8Index,
  Int8Table,
  KernelSet,
  UserModel,
  UserModelTensors,
} from "../../src/kernels/kernelSet.js";
import { MemoryStorage } from "../../src/outbox/memoryStorage.js";
import { type BundleStore, MemoryBundleStore } from "../../src/releases/bundleStore.js";
import { FakeClock, fakeEntropy } from "../support/fakes.js";
import { KERNELS } from "../support/kernels.js";
import {
  EXPIRES_MS,
  noRuntime,
  SignedRepository,
  tinyRelease,
} from "../support/signedRepository.js";

const KERNEL = KERNELS[1]!;

/** Kernels whose index number `broken`, from 1, throws once `isBroken`. */
class BreakableKernels implements KernelSet {
  readonly source = KERNEL.source;
  isBroken = false;
  #made = 0;

  constructor(readonly broken: number) {}

  makeIndex(table: Int8Table): Int8Index {
    const index = KERNEL.makeIndex(table);
    this.#made += 1;
    if (this.#made === this.broken) {
      const top = index.top.bind(index);
      index.top = (...parameters) => {
        if (this.isBroken) {
          throw new Error("out of memory");
        }
        return top(...parameters);
      };
    }
    return index;
  }

  makeUserModel(policy: UserModelTensors): UserModel {
    return KERNEL.makeUserModel(policy);
  }

  uniforms(decision: string, blocks: number): Float64Array {
    return KERNEL.uniforms(decision, blocks);
  }
}

/** A store of a process that is killed after so many writes: the lock is free again. */
class DyingStore implements BundleStore {
  readonly name = "memory";

  constructor(
    readonly store: BundleStore,
    public left: number,
  ) {}

  get isAlive(): boolean {
    return this.left >= 0;
  }

  async #change(change: () => Promise<void>): Promise<void> {
    this.left -= 1;
    if (!this.isAlive) {
      throw new StorageError("the process is dead");
    }
    await change();
  }

  read(key: string): Promise<Uint8Array | null> {
    return this.store.read(key);
  }

  write(key: string, value: Uint8Array): Promise<void> {
    return this.#change(() => this.store.write(key, value));
  }

  remove(key: string): Promise<void> {
    return this.#change(() => this.store.remove(key));
  }

  keys(): Promise<string[]> {
    return this.store.keys();
  }

  freeBytes(): Promise<number | null> {
    return this.store.freeBytes();
  }

  async lock(): Promise<() => Promise<void>> {
    return async () => {};
  }
}

/** One device: a repository in which release 2 is published, and what it stores. */
class World {
  readonly clock = new FakeClock();
  readonly storage = new MemoryStorage("");

  constructor(
    readonly bundles: BundleStore = new MemoryBundleStore(),
    readonly repository = published(2),
  ) {}

  open(options: { kernels?: KernelSet; app?: MemorySource } = {}): Promise<Engine> {
    const { kernels = KERNEL, app = new MemorySource(tinyRelease(1)) } = options;
    return Engine.open(app, {
      kernels,
      encoder: noRuntime,
      state: this.storage,
      bundles: this.bundles,
      releases: this.repository,
      root: this.repository.root,
      clock: this.clock,
      entropy: fakeEntropy(3),
    });
  }

  async state(): Promise<Record<string, unknown>> {
    const data = await this.bundles.read("slots.json");
    return data === null ? {} : JSON.parse(new TextDecoder().decode(data));
  }
}

function published(release: number): SignedRepository {
  const repository = new SignedRepository();
  repository.publish(release);
  return repository;
}

async function releaseOf(engine: Engine): Promise<number> {
  return (await engine.recommend({ user: "ada", k: 3 })).release;
}

/** Lets what runs in the background, such as a confirmation, end. */
function settled(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 20));
}

test("A release is swapped in between two requests and confirmed by its first slate.", async () => {
  const world = new World();
  const engine = await world.open();
  assert.equal(await releaseOf(engine), 1);
  assert.equal(await engine.update(), 2);
  assert.equal((await world.state())["confirmed"], false);
  assert.equal(await releaseOf(engine), 2);
  await settled();
  assert.equal((await world.state())["confirmed"], true);
  assert.equal(await engine.update(), null);
  const { attempts, installed, failed } = engine.counters().updates;
  assert.deepEqual([attempts, installed, failed], [2, 1, 0]);
  await engine.close();
  assert.equal((await world.open()).release, 2);
});

test("Requests during an update are answered by the release before.", async () => {
  const world = new World();
  const engine = await world.open();
  const seen: number[] = [];
  world.repository.before = async () => void seen.push(await releaseOf(engine));
  assert.equal(await engine.update(), 2);
  assert.ok(seen.length >= 5 && seen.every((release) => release === 1));
  await assert.doesNotReject(releaseOf(engine));
});

test("A release that fails its first request is rolled back, and it is answered.", async (t) => {
  t.mock.method(console, "warn", () => {});
  const world = new World();
  const kernels = new BreakableKernels(2);
  const engine = await world.open({ kernels });
  assert.equal(await engine.update(), 2);
  kernels.isBroken = true;
  assert.equal(await releaseOf(engine), 1);
  const { current, blocked } = await world.state();
  assert.equal(current, null);
  assert.match((blocked as Record<string, string>)["2"]!, /first request: out of memory/);
  assert.equal(await engine.update(), null);
  assert.equal(engine.counters().updates.rolledBack, 1);
});

test("A caller's error rolls nothing back, on trial or later.", async () => {
  const engine = await new World().open();
  assert.equal(await engine.update(), 2);
  const wrong = { user: "ada", where: { nothing: { is: 1 } } } as never;
  await assert.rejects(engine.recommend(wrong), RangeError);
  await assert.rejects(engine.similar("unknown"), RangeError);
  assert.equal(engine.release, 2);
  assert.equal(await releaseOf(engine), 2);
  await assert.rejects(engine.recommend(wrong), RangeError);
  assert.equal(engine.release, 2);
});

test("What the app changed of the catalog survives a swap and a roll-back.", async () => {
  const world = new World();
  const engine = await world.open();
  const [first] = await engine.recommend({ user: "ada", greedy: true, k: 1 });
  await engine.removeItems([first!]);
  assert.equal(await engine.update(), 2);
  const shown = async (): Promise<string[]> =>
    (await engine.recommend({ user: "ada", greedy: true, k: 96 })).items.map((item) => item.id);
  assert.ok(!(await shown()).includes(first!.id));
  assert.equal(await engine.rollback(), 1);
  assert.ok(!(await shown()).includes(first!.id));
});

test("A confirmed release that is rolled back leads to the one before it.", async () => {
  const world = new World();
  const engine = await world.open();
  await engine.update();
  await releaseOf(engine);
  world.repository.publish(3);
  assert.equal(await engine.update(), 3);
  await releaseOf(engine);
  await engine.close();
  const next = await world.open();
  assert.equal(next.release, 3);
  assert.equal(await next.rollback(), 2);
  assert.equal(await next.rollback(), 1);
  assert.equal(await next.rollback(), 1);
});

test("Files of a release that nobody goes back to are deleted.", async () => {
  const world = new World();
  const engine = await world.open();
  for (const release of [2, 3, 4]) {
    world.repository.publish(release);
    assert.equal(await engine.update(), release);
    await releaseOf(engine);
    await settled();
  }
  const keys = await world.bundles.keys();
  assert.deepEqual(
    keys.filter((key) => key.startsWith("releases/")).sort(),
    ["releases/3.json", "releases/4.json"],
  );
  assert.equal(keys.filter((key) => key.startsWith("files/")).length, tinyRelease(1).size - 1);
});

test("Of two tabs one tries a release; the other uses what is confirmed, then joins.", async () => {
  const world = new World();
  const first = await world.open();
  assert.equal(await first.update(), 2);
  const second = await world.open();
  assert.equal(second.release, 1);
  await assert.rejects(second.update(), /another engine, such as one in another tab/);
  assert.equal((await world.state())["tried"], false);
  assert.equal(await releaseOf(first), 2);
  await settled();
  const reads = world.repository.reads.length;
  assert.equal(await second.update(), 2);
  assert.equal(world.repository.reads.length, reads);
  assert.equal(await releaseOf(second), 2);
});

test("A page that is hidden before its first slate has not failed.", async (t) => {
  const world = new World();
  const engine = await world.open();
  await engine.update();
  await engine.close();
  const listeners = new EventTarget();
  const addEventListener = listeners.addEventListener.bind(listeners);
  const page = { addEventListener, document: new EventTarget() };
  Object.assign(globalThis, page);
  t.after(() => Object.keys(page).forEach((name) => Reflect.deleteProperty(globalThis, name)));
  assert.equal((await world.open()).release, 2);
  assert.equal((await world.state())["tried"], true);
  listeners.dispatchEvent(new Event("pagehide"));
  await settled();
  assert.equal((await world.state())["tried"], false);
});

test("Off line the installed release opens without the app's own.", async () => {
  const world = new World();
  const engine = await world.open();
  await engine.update();
  await releaseOf(engine);
  await engine.close();
  const app = new MemorySource(new Map());
  app.read = async () => {
    throw new BundleError("no network");
  };
  const next = await world.open({ app });
  assert.equal(await releaseOf(next), 2);
  await assert.rejects(next.rollback(), /no network/);
  assert.equal(next.release, 2);
});

test("An installed bundle that was damaged gives way to the app's own.", async (t) => {
  t.mock.method(console, "warn", () => {});
  const world = new World();
  const engine = await world.open();
  await engine.update();
  await releaseOf(engine);
  await engine.close();
  const keys = (await world.bundles.keys()).filter((key) => key.startsWith("files/"));
  for (const key of keys) {
    await world.bundles.write(key, Uint8Array.of(0));
  }
  assert.equal((await world.open()).release, 1);
});

test("A damaged state of the slots stops updates, and the app's own bundle serves.", async (t) => {
  t.mock.method(console, "warn", () => {});
  const world = new World();
  await world.bundles.write("slots.json", Buffer.from("{"));
  const engine = await world.open();
  assert.equal(await releaseOf(engine), 1);
  await assert.rejects(engine.update(), StorageError);
  assert.equal(engine.counters().updates.failed, 1);
});

test("A store that is full fails the update, and the next one goes on from there.", async () => {
  const bundles = new MemoryBundleStore();
  const world = new World(bundles);
  const engine = await world.open();
  const write = bundles.write.bind(bundles);
  let left = 6;
  bundles.write = async (key, value) => {
    if (left-- <= 0) {
      throw new StorageError("this page's storage is full");
    }
    await write(key, value);
  };
  await assert.rejects(engine.update(), /storage is full/);
  assert.equal(await releaseOf(engine), 1);
  bundles.write = write;
  bundles.freeBytes = (async () => 1000) as never;
  await assert.rejects(engine.update(), /needs \d+ bytes, found 1000 free/);
  bundles.freeBytes = async () => null;
  assert.equal(await engine.update(), 2);
});

test("Updates go on from a whole bundle, whichever write a crash was after.", async (t) => {
  t.mock.method(console, "warn", () => {});
  const repository = published(2);
  for (let writes = 0, isAlive = false; !isAlive; writes++) {
    const store = new MemoryBundleStore();
    const dying = new DyingStore(store, writes);
    const engine = await new World(dying, repository).open();
    await engine.update().then(() => releaseOf(engine)).catch(() => {});
    await settled(); // the confirmation writes, too
    isAlive = dying.isAlive;

    const next = await new World(store, repository).open();
    assert.equal(await releaseOf(next), next.release);
    const release = await next.update();
    assert.equal(release ?? next.release, 2, `after ${writes} writes`);
    assert.equal(await releaseOf(next), 2);
  }
});

test("An engine that is closed during an update does not swap.", async () => {
  const world = new World();
  const engine = await world.open();
  world.repository.before = async (path) => {
    if (path.endsWith("manifest.json")) {
      await engine.close();
    }
  };
  await assert.rejects(engine.update(), /found a closed one/);
  assert.equal(engine.release, 1);
  assert.notEqual(await world.bundles.lock(), null);
});

test("An update is stopped at its time limit, and can be repeated.", async () => {
  const world = new World();
  const engine = await world.open();
  world.repository.before = () => new Promise(() => {});
  await assert.rejects(engine.update(0.05), /took longer than 0.05 s/);
  world.repository.before = () => {};
  assert.equal(await engine.update(), 2);
});

test("Metadata expires by the engine's own clock.", async () => {
  const world = new World();
  const engine = await world.open();
  world.clock.wall = EXPIRES_MS;
  await assert.rejects(engine.update(), /stale: .*has expired/);
  world.clock.wall = EXPIRES_MS - 1;
  assert.equal(await engine.update(), 2);
});

test("Options that lack another are an error when the engine opens.", async () => {
  const app = new MemorySource(tinyRelease(1));
  const { root } = new SignedRepository();
  const open = (options: object) => Engine.open(app, { kernels: KERNEL, ...options });
  await assert.rejects(open({ releases: "/releases" }), /root: expected the content/);
  await assert.rejects(open({ releases: "/releases", root }), /expected `state` with it/);
  const state = new MemoryStorage("");
  await assert.rejects(open({ releases: "/releases", root, state }), /`bundles` where/);
  await assert.rejects(open({ releases: 3, root }), /releases: expected a URL or a source/);
  await assert.rejects(open({ bundles: {} }), /bundles: expected a store/);
  await assert.rejects((await open({})).update(), UpdateError);
});
