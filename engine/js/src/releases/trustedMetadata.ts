/**
 * The metadata that this device trusts, and the rules by which newer metadata replaces it: the
 * client workflow of The Update Framework, section 5.
 *
 * Each role is loaded after those that vouch for it. What is out of date or superseded is kept, so
 * that nothing older is accepted in its place, but nothing is loaded on top of it.
 */

import { altered, invalid, rolledBack, stale, unsigned } from "./faults.js";
import { fileHash } from "../runtime/sha256.js";
import {
  expiryMs,
  type FileMeta,
  type MetaList,
  parseMetadata,
  type Role,
  type Root,
  type Targets,
  type UnverifiedFile,
} from "./metadata.js";
import { isSignedBy } from "./signatures.js";

/** The trusted metadata of one update; `nowMs` is the time by which all of it is judged. */
export class TrustedMetadata {
  #root: Root;
  #timestamp: MetaList | null = null;
  #snapshot: MetaList | null = null;
  #targets: Targets | null = null;
  readonly #nowMs: number;

  private constructor(root: Root, nowMs: number) {
    this.#root = root;
    this.#nowMs = nowMs;
  }

  /** Returns what the app's own root says; throws `UpdateError` where that is not signed. */
  static async of(root: Uint8Array, nowMs: number): Promise<TrustedMetadata> {
    const file = parseMetadata("root", root);
    await checkSigned(file.signed, "root", file);
    return new TrustedMetadata(file.signed, nowMs);
  }

  /** Whom this device trusts now. */
  get root(): Root {
    return this.#root;
  }

  /** What the timestamp says of the newest snapshot. */
  get snapshotMeta(): FileMeta {
    return this.#timestamp!.meta.get("snapshot.json")!;
  }

  /** What the snapshot says of the newest targets. */
  get targetsMeta(): FileMeta {
    return this.#snapshot!.meta.get("targets.json")!;
  }

  /** The released files. */
  get targets(): Targets {
    return this.#targets!;
  }

  /** Trusts the next root, which the present one's keys and its own must have signed. */
  async updateRoot(data: Uint8Array): Promise<void> {
    const file = parseMetadata("root", data);
    await checkSigned(this.#root, "root", file);
    await checkSigned(file.signed, "root", file);
    const expected = this.#root.version + 1;
    if (file.signed.version !== expected) {
      throw invalid("root.json", `expected version ${expected}, found ${file.signed.version}`);
    }
    this.#root = file.signed;
  }

  /**
   * Trusts a newer timestamp; returns false, and keeps the present one, where it is as new.
   *
   * Throws `UpdateError` for one that is older or names an older snapshot, and for one that has
   * expired, which is kept.
   */
  async updateTimestamp(data: Uint8Array): Promise<boolean> {
    // An intermediate root may have expired; the last one may not.
    this.#checkFresh("root.json", this.#root);
    const file = parseMetadata("timestamp", data);
    await checkSigned(this.#root, "timestamp", file);
    const present = this.#timestamp;
    const { version } = file.signed;
    if (present !== null) {
      if (version === present.version) {
        return false;
      }
      checkNotOlder("timestamp.json", present.version, version);
      const snapshot = file.signed.meta.get("snapshot.json")!.version;
      checkNotOlder("snapshot.json", this.snapshotMeta.version, snapshot);
    }
    this.#timestamp = file.signed;
    this.#checkFresh("timestamp.json", file.signed);
    return true;
  }

  /**
   * Trusts a snapshot; `isStored` says that it was verified before, perhaps against an older
   * timestamp.
   *
   * Throws `UpdateError` for one that names older targets, and for one that has expired or that the
   * timestamp does not name, which is kept.
   */
  async updateSnapshot(data: Uint8Array, isStored: boolean): Promise<void> {
    this.#checkFresh("timestamp.json", this.#timestamp!);
    if (!isStored) {
      await checkContent("snapshot.json", data, this.snapshotMeta);
    }
    const file = parseMetadata("snapshot", data);
    await checkSigned(this.#root, "snapshot", file);
    for (const [name, { version }] of this.#snapshot?.meta ?? []) {
      checkNotOlder(name, version, file.signed.meta.get(name)?.version ?? 0);
    }
    this.#snapshot = file.signed;
    this.#checkFinalSnapshot();
  }

  /** Trusts targets; throws `UpdateError` unless they are those of the snapshot. */
  async updateTargets(data: Uint8Array): Promise<void> {
    this.#checkFinalSnapshot();
    await checkContent("targets.json", data, this.targetsMeta);
    const file = parseMetadata("targets", data);
    await checkSigned(this.#root, "targets", file);
    checkVersion("targets.json", this.targetsMeta.version, file.signed.version);
    this.#checkFresh("targets.json", file.signed);
    this.#targets = file.signed;
  }

  #checkFinalSnapshot(): void {
    const snapshot = this.#snapshot!;
    this.#checkFresh("snapshot.json", snapshot);
    checkVersion("snapshot.json", this.snapshotMeta.version, snapshot.version);
  }

  #checkFresh(file: string, signed: Parameters<typeof expiryMs>[0]): void {
    const expires = expiryMs(signed);
    if (this.#nowMs >= expires) {
      throw stale(file, expires);
    }
  }
}

/** Throws `UpdateError` unless enough of a role's keys have signed a file. */
async function checkSigned(root: Root, role: Role, file: UnverifiedFile<unknown>): Promise<void> {
  const { keyids, threshold } = root.roles.get(role)!;
  let signers = 0;
  for (const keyid of keyids) {
    const key = root.keys.get(keyid);
    const signature = file.signatures.get(keyid);
    if (key !== undefined && signature !== undefined) {
      signers += (await isSignedBy(key, signature, file.bytes)) ? 1 : 0;
    }
  }
  if (signers < threshold) {
    throw unsigned(role, threshold, signers);
  }
}

function checkNotOlder(file: string, present: number, found: number): void {
  if (found < present) {
    throw rolledBack(file, present, found);
  }
}

function checkVersion(file: string, expected: number, found: number): void {
  checkNotOlder(file, expected, found);
  if (found !== expected) {
    throw invalid(file, `expected version ${expected}, found ${found}`);
  }
}

/** Throws `UpdateError` where a file has not the length and the SHA-256 that were signed. */
export async function checkContent(
  file: string,
  data: Uint8Array,
  { length, hashes }: Pick<FileMeta, "length" | "hashes">,
): Promise<void> {
  if (length !== undefined && data.length !== length) {
    throw altered(file, `${length} bytes`, data.length);
  }
  if (hashes === undefined) {
    return;
  }
  const expected = hashes.get("sha256");
  const found = await fileHash(data);
  if (expected !== found) {
    throw altered(file, `the SHA-256 ${expected}`, found);
  }
}
