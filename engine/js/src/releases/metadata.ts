/** The signed metadata of a release repository (The Update Framework 1.0), parsed and checked. */

import { decodeJson } from "../bundle/decodeJson.js";
import { UpdateError } from "../errors.js";
import { bool, checked, field, int, list, map, struct, text } from "../runtime/structs.js";
import type { StructSpec } from "../runtime/structs.js";
import { utf8 } from "../runtime/text.js";
import { canonicalJson } from "./canonicalJson.js";
import { invalid } from "./faults.js";
import type { PublicKey } from "./signatures.js";

/** Who signs what: root says whom to trust, targets which files are released. */
export type Role = "root" | "timestamp" | "snapshot" | "targets";

interface Signed {
  readonly version: number;

  /** `2026-11-30T12:00:00Z`. */
  readonly expires: string;
}

/** Whom to trust for each role. */
export interface Root extends Signed {
  readonly consistent_snapshot: boolean;
  readonly keys: ReadonlyMap<string, PublicKey>;
  readonly roles: ReadonlyMap<string, { readonly keyids: readonly string[]; threshold: number }>;
}

/** The version of other metadata, and where it is signed its content. */
export interface FileMeta {
  readonly version: number;
  readonly length?: number;
  readonly hashes?: ReadonlyMap<string, string>;
}

/** Which snapshot is the newest, in a timestamp; which targets are, in a snapshot. */
export interface MetaList extends Signed {
  readonly meta: ReadonlyMap<string, FileMeta>;
}

/** A released file. */
export interface TargetFile {
  readonly length: number;
  readonly hashes: ReadonlyMap<string, string>;
  readonly custom?: Readonly<Record<string, unknown>>;
}

/** The released files by path. */
export interface Targets extends Signed {
  readonly targets: ReadonlyMap<string, TargetFile>;
}

interface ByRole {
  readonly root: Root;
  readonly timestamp: MetaList;
  readonly snapshot: MetaList;
  readonly targets: Targets;
}

/** A file of metadata whose signatures are not verified yet. */
export interface UnverifiedFile<T> {
  readonly signed: T;

  /** What was signed. */
  readonly bytes: Uint8Array;

  /** Hex digits by the id of a key. */
  readonly signatures: ReadonlyMap<string, string>;
}

const LENIENT = { lenient: true };
const hashes = map(text(), text({ pattern: /^[0-9a-f]+$/ }));

const KEY = struct("Key", LENIENT, [
  field("keytype", text()),
  field("scheme", text()),
  field("keyval", map(text(), text())),
]);

const ROLE = struct("Role", LENIENT, [
  field("keyids", list(text())),
  field("threshold", int({ min: 1 })),
]);

const META = struct("MetaFile", LENIENT, [
  field("version", int({ min: 1 })),
  field("length", int({ min: 0 }), { optional: true }),
  field("hashes", hashes, { optional: true }),
]);

const TARGET = struct("TargetFile", LENIENT, [
  field("length", int({ min: 0 })),
  field("hashes", hashes),
  field("custom", { kind: "record" }, { optional: true }),
]);

const FIELDS = {
  root: [
    field("consistent_snapshot", bool(), { fallback: () => false }),
    field("keys", map(text(), KEY)),
    field("roles", map(text(), ROLE)),
  ],
  timestamp: [field("meta", map(text(), META))],
  snapshot: [field("meta", map(text(), META))],
  targets: [field("targets", map(text(), TARGET))],
};

const FILE = struct("Metadata", LENIENT, [
  field("signed", { kind: "record" }),
  field(
    "signatures",
    list(struct("Signature", LENIENT, [field("keyid", text()), field("sig", text())])),
  ),
]);

function specOf(role: Role): StructSpec {
  return struct(role, LENIENT, [
    field("_type", { kind: "choice", values: [role] }),
    field("spec_version", text({ pattern: /^1\.[0-9.]+$/ })),
    field("version", int({ min: 1 })),
    field("expires", text({ pattern: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/ })),
    ...FIELDS[role],
  ]);
}

/** Returns metadata of a role, whoever has signed it; throws `UpdateError` for what is none. */
export function parseMetadata<R extends Role>(
  role: R,
  data: Uint8Array,
): UnverifiedFile<ByRole[R]> {
  const file = `${role}.json`;
  try {
    const content = checked(FILE, decodeJson(file, data)) as {
      signed: object;
      signatures: { keyid: string; sig: string }[];
    };
    const signatures = new Map(content.signatures.map(({ keyid, sig }) => [keyid, sig]));
    if (signatures.size !== content.signatures.length) {
      throw new RangeError("expected one signature of each key");
    }
    const signed = checked(specOf(role), content.signed) as ByRole[R];
    checkFields(role, signed);
    return { signed, bytes: utf8(canonicalJson(content.signed)), signatures };
  } catch (error) {
    throw error instanceof UpdateError ? error : invalid(file, (error as Error).message);
  }
}

/** Throws `RangeError` for what a description of types cannot say. */
function checkFields(role: Role, signed: Signed): void {
  if (!Number.isFinite(expiryMs(signed))) {
    throw new RangeError(`expires: expected a date, found ${signed.expires}`);
  }
  if (role === "root") {
    const { roles } = signed as Root;
    for (const name of ["root", "timestamp", "snapshot", "targets"]) {
      const keyids = roles.get(name)?.keyids ?? [];
      if (keyids.length === 0 || new Set(keyids).size !== keyids.length) {
        throw new RangeError(`roles: ${name}: expected different keys, found ${keyids.length}`);
      }
    }
  }
  const needed = { timestamp: "snapshot.json", snapshot: "targets.json" }[role as string];
  if (needed !== undefined && !(signed as MetaList).meta.has(needed)) {
    throw new RangeError(`meta: expected ${needed}`);
  }
}

/** Returns when metadata expires, in ms since 1970. */
export function expiryMs(signed: Signed): number {
  return Date.parse(signed.expires);
}
