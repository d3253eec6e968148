/** Generated from `sanderling.bundle.manifest` by `python -m tools.js_types`: do not edit. */

import {
  bool, choice, field, float, int, list, map, record, struct, text,
} from "../runtime/structs.js";

export const SCHEMA = 1;

export const MANIFEST = "manifest.json";

export const MAX_MANIFEST_BYTES = 1048576;

export const MAX_POOL = 10000;

/** The name of the installs that are in no arm. */
export const REST = "rest";

export const ROUNDING = 1e-09;

/** Characters of an item's id, at most: events take no longer ones. */
export const MAX_ID = 512;

/** Characters of a prefix, at most. */
export const MAX_PREFIX = 64;

export const APP_NAME = "^[a-z0-9][a-z0-9._-]{0,63}$";

export const FILES = [
  "encoder.onnx",
  "tokenizer.json",
  "policy.safetensors",
  "items.safetensors",
  "catalog.jsonl",
  "golden.json",
] as const;

export const OPTIONAL_FILES = ["columns.safetensors"] as const;

/** The sizes by which readers check the tensors' shapes. */
export interface Sizes {
  /** Items n. */
  readonly items: number;
  /** Dimension d of the items' vectors. */
  readonly dim: number;
  /** Channels c of a user's state. */
  readonly state: number;
  /** Dimension t of the encoder's vectors. */
  readonly text: number;
  /** Tokens of a text beyond which it is cut. */
  readonly max_tokens: number;
}

export const SIZES_SPEC = struct("Sizes", [
  field("items", int({ min: 1, max: 9007199254740992 })),
  field("dim", int({ min: 1, max: 9007199254740992 })),
  field("state", int({ min: 1, max: 9007199254740992 })),
  field("text", int({ min: 1, max: 9007199254740992 })),
  field("max_tokens", int({ min: 8, max: 8192 })),
]);

/** One file of the bundle. */
export interface FileEntry {
  /** In bytes, exactly. */
  readonly length: number;
  /** In lower-case hex. */
  readonly sha256: string;
}

export const FILE_ENTRY_SPEC = struct("FileEntry", [
  field("length", int({ min: 0, max: 9007199254740992 })),
  field("sha256", text({ pattern: /^[0-9a-f]{64}$/ })),
]);

/** How the device explores. */
export interface Exploration {
  /** The scheme of `sanderling.exploration.schemes` that draws slates. */
  readonly scheme: "mixture" | "sequential" | "softmax";
  /** The share of slots (`sequential`) or of slates (`mixture`) that explore. */
  readonly epsilon: number;
  /** The number M of best items among which a slate is drawn. */
  readonly pool: number;
  /** Of `softmax`: by which scores are divided. */
  readonly temperature: number;
  /** The first slots, which always show the best items. */
  readonly guarded: number;
  /** Explored slots per user and day (UTC), after which slates are greedy. null: no limit. */
  readonly daily: number | null;
  /**
   * The share of explored slots that show a newcomer, while there are newcomers outside the pool:
   * `epsilon` times this is the share of slots, under `softmax` too.
   */
  readonly newcomers: number;
}

export const EXPLORATION_SPEC = struct("Exploration", [
  field("scheme", choice(["mixture", "sequential", "softmax"]), { fallback: () => "sequential" }),
  field("epsilon", float({ min: 0.0, max: 1.0 }), { fallback: () => 0.1 }),
  field("pool", int({ min: 1, max: 10000 }), { fallback: () => 50 }),
  field("temperature", float({ min: 1e-06, max: 1000000.0 }), { fallback: () => 1.0 }),
  field("guarded", int({ min: 0, max: 1000 }), { fallback: () => 0 }),
  field("daily", int({ min: 0, max: 1000000 }), { nullable: true, fallback: () => null }),
  field("newcomers", float({ min: 0.0, max: 1.0 }), { fallback: () => 0.3 }),
]);

/** What the policy was learned from. */
export interface Lineage {
  /** The release whose policy it continues, 0 for none. */
  readonly parent: number;
  /** Start of the log, in seconds since 1970. */
  readonly log_from: number;
  /** End of the log, in seconds since 1970. */
  readonly log_to: number;
  /** The hash of the training data. */
  readonly data_sha256: string;
}

export const LINEAGE_SPEC = struct("Lineage", [
  field("parent", int({ min: 0, max: 9007199254740992 })),
  field("log_from", int()),
  field("log_to", int()),
  field("data_sha256", text({ pattern: /^[0-9a-f]{64}$/ })),
]);

/** What the encoder reads before a text, as some language models were trained with. */
export interface Prefixes {
  /** Before the text of an item. */
  readonly item: string;
  /** Before a context or a search. */
  readonly query: string;
}

export const PREFIXES_SPEC = struct("Prefixes", [
  field("item", text({ max: 64 }), { fallback: () => "" }),
  field("query", text({ max: 64 }), { fallback: () => "" }),
]);

/** What the installs of one arm of an experiment get. */
export interface Arm {
  /** On each decision, and on each slate. */
  readonly name: string;
  /** Of all installs. */
  readonly share: number;
  /** How they explore; null: as the bundle says. */
  readonly exploration: Exploration | null;
  /**
   * Whether slates follow from the user. If not, all users have those of an item's popularity
   * alone, its bias: what there would be without a recommender.
   */
  readonly personalized: boolean;
}

export const ARM_SPEC = struct("Arm", [
  field("name", text({ pattern: /^[a-z0-9][a-z0-9._-]{0,63}$/ })),
  field("share", float({ max: 1.0, above: 0.0 })),
  field("exploration", EXPLORATION_SPEC, { nullable: true, fallback: () => null }),
  field("personalized", bool(), { fallback: () => true }),
]);

/** A comparison of arms, to which installs are assigned by a hash of their ids. */
export interface Experiment {
  /** Another name assigns all installs anew. */
  readonly name: string;
  /** The rest of the installs, if there is one, gets what the bundle says. */
  readonly arms: readonly Arm[];
}

export const EXPERIMENT_SPEC = struct("Experiment", [
  field("name", text({ pattern: /^[a-z0-9][a-z0-9._-]{0,63}$/ })),
  field("arms", list(ARM_SPEC, { min: 1, max: 16 })),
]);

/** What holds for every request of the app, in the form of `Engine.recommend`'s arguments. */
export interface Rules {
  /** A rule that items must meet; none if empty. */
  readonly where: Readonly<Record<string, unknown>>;
  /** Caps by attribute. */
  readonly at_most: ReadonlyMap<string, number>;
  /** Boosts, each with `where` and `by`. */
  readonly boost: readonly Readonly<Record<string, unknown>>[];
  /** Where a request has none of its own. */
  readonly diversity: number;
}

export const RULES_SPEC = struct("Rules", [
  field("where", record(), { fallback: () => ({}) }),
  field(
    "at_most",
    map(text({ min: 1, max: 512 }), int({ min: 1, max: 10000 })),
    { fallback: () => new Map() },
  ),
  field("boost", list(record()), { fallback: () => [] }),
  field("diversity", float({ min: 0.0, max: 1.0 }), { fallback: () => 0.0 }),
]);

/** The content of manifest.json. */
export interface Manifest {
  /** Whose bundle it is. */
  readonly app: string;
  /** Rises with each release. */
  readonly release: number;
  /** In seconds since 1970. */
  readonly created: number;
  /** The oldest version of the engine that may open the bundle. */
  readonly min_engine: string;
  readonly sizes: Sizes;
  /** All files except the manifest itself, by name: `FILES`, and any of `OPTIONAL_FILES`. */
  readonly files: ReadonlyMap<string, FileEntry>;
  readonly exploration: Exploration;
  /** Kinds of event in the order of `state.kind`; the first stands for unknown kinds. */
  readonly kinds: readonly string[];
  readonly lineage: Lineage;
  readonly prefixes: Prefixes;
  /** Arms that are compared; null for no experiment. */
  readonly experiment: Experiment | null;
  /** What holds for every request; null for no rules. */
  readonly rules: Rules | null;
  /** Figures of evaluation and gate, for people; no engine reads them. */
  readonly reports: Readonly<Record<string, unknown>>;
  readonly schema: 1;
}

export const MANIFEST_SPEC = struct("Manifest", [
  field("app", text({ pattern: /^[a-z0-9][a-z0-9._-]{0,63}$/ })),
  field("release", int({ min: 1, max: 9007199254740992 })),
  field("created", int({ min: 0, max: 9007199254740992 })),
  field("min_engine", text({ pattern: /^\d+\.\d+\.\d+$/ })),
  field("sizes", SIZES_SPEC),
  field("files", map(text(), FILE_ENTRY_SPEC)),
  field("exploration", EXPLORATION_SPEC),
  field("kinds", list(text(), { min: 1, max: 256 })),
  field("lineage", LINEAGE_SPEC),
  field("prefixes", PREFIXES_SPEC, { fallback: () => ({"item": "", "query": ""}) }),
  field("experiment", EXPERIMENT_SPEC, { nullable: true, fallback: () => null }),
  field("rules", RULES_SPEC, { nullable: true, fallback: () => null }),
  field("reports", record(), { fallback: () => ({}) }),
  field("schema", choice([1]), { fallback: () => 1 }),
]);
