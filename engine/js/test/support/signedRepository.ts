/** A release repository in memory, signed as `sanderling release` signs. */

import { createHash, generateKeyPairSync, type KeyObject, sign } from "node:crypto";

import { MissingPackageError } from "../../src/ranking/missingPackage.js";
import type { EncoderRuntime } from "../../src/ranking/textEncoder.js";
import { canonicalJson } from "../../src/releases/canonicalJson.js";
import type { ReleaseSource } from "../../src/releases/releaseSource.js";
import { filesIn } from "./bundles.js";

/** When metadata expires, in ms since 1970: after the `FakeClock`'s time. */
export const EXPIRES_MS = Date.parse("2030-01-01T00:00:00Z");

/** Stands for packages that are not installed. */
export const noRuntime: EncoderRuntime = async () => {
  throw new MissingPackageError("onnxruntime-web", "left out");
};

/** Returns the files of the tiny bundle as another release. */
export function tinyRelease(release: number): Map<string, Uint8Array> {
  const files = filesIn("engine/sanderling/cli/tiny_bundle");
  const manifest = JSON.parse(Buffer.from(files.get("manifest.json")!).toString()) as object;
  return files.set("manifest.json", Buffer.from(JSON.stringify({ ...manifest, release })));
}

/** Returns the app of the tiny bundle. */
export function tinyApp(): string {
  return JSON.parse(Buffer.from(tinyRelease(1).get("manifest.json")!).toString()).app as string;
}

/** A repository with one key for all roles. */
export class SignedRepository implements ReleaseSource {
  readonly name = "https://releases.example";
  readonly files = new Map<string, Uint8Array>();

  /** The paths that were read. */
  readonly reads: string[] = [];

  /** Called before each read. */
  before: (path: string) => Promise<void> | void = () => {};

  readonly #key = generateKeyPairSync("ed25519");
  readonly #targets: Record<string, unknown> = {};
  #version = 0;

  constructor() {
    const { publicKey } = this.#key;
    const raw = publicKey.export({ type: "spki", format: "der" }).subarray(-32);
    const key = { keytype: "ed25519", scheme: "ed25519", keyval: { public: raw.toString("hex") } };
    const role = { keyids: ["key"], threshold: 1 };
    const roles = { root: role, timestamp: role, snapshot: role, targets: role };
    const root = { consistent_snapshot: true, keys: { key }, roles };
    this.#put("root", 1, root, "1.");
  }

  /** The content of root.json. */
  get root(): Uint8Array {
    return this.files.get("metadata/1.root.json")!;
  }

  /** Publishes the tiny bundle as a release, for all installs. */
  publish(release: number): void {
    for (const [name, content] of tinyRelease(release)) {
      const sha256 = createHash("sha256").update(content).digest("hex");
      this.files.set(`targets/releases/${release}/${sha256}.${name}`, content);
      const custom = name === "manifest.json" && { app: tinyApp(), release, rollout: 100 };
      const target = { length: content.length, hashes: { sha256 }, ...(custom && { custom }) };
      this.#targets[`releases/${release}/${name}`] = target;
    }
    const version = ++this.#version;
    this.#put("targets", version, { targets: this.#targets }, `${version}.`);
    this.#put("snapshot", version, { meta: { "targets.json": { version } } }, `${version}.`);
    this.#put("timestamp", version, { meta: { "snapshot.json": { version } } }, "");
  }

  async read(path: string, _limit: number, signal: AbortSignal): Promise<Uint8Array | null> {
    this.reads.push(path);
    await this.before(path);
    signal.throwIfAborted();
    return this.files.get(path) ?? null;
  }

  #put(role: string, version: number, fields: object, prefix: string): void {
    const expires = new Date(EXPIRES_MS).toISOString().replace(".000Z", "Z");
    const signed = { _type: role, spec_version: "1.0.31", version, expires, ...fields };
    const sig = this.#sign(this.#key.privateKey, canonicalJson(signed));
    const file = { signatures: [{ keyid: "key", sig }], signed };
    this.files.set(`metadata/${prefix}${role}.json`, Buffer.from(JSON.stringify(file)));
  }

  #sign(key: KeyObject, text: string): string {
    return sign(null, Buffer.from(text), key).toString("hex");
  }
}
