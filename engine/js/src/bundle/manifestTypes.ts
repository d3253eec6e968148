/** The interfaces of manifest.json. */

export interface Sizes {
  readonly items: number;
  readonly dim: number;
  readonly state: number;
  readonly text: number;
  readonly max_tokens: number;
}

export interface FileEntry {
  readonly length: number;
  readonly sha256: string;
}

export interface Exploration {
  readonly scheme: "mixture" | "sequential" | "softmax";
  readonly epsilon: number;
  readonly pool: number;
  readonly temperature: number;
  readonly guarded: number;
  readonly daily: number | null;
  readonly newcomers: number;
}

export interface Prefixes {
  readonly item: string;
  readonly query: string;
}

export interface Arm {
  readonly name: string;
  readonly share: number;
  readonly exploration: Exploration | null;
  readonly personalized: boolean;
}

export interface Experiment {
  readonly name: string;
  readonly arms: readonly Arm[];
}

export interface Rules {
  readonly where: Readonly<Record<string, unknown>>;
  readonly at_most: ReadonlyMap<string, number>;
  readonly boost: readonly Readonly<Record<string, unknown>>[];
  readonly diversity: number;
}

export interface Lineage {
  readonly parent: number;
  readonly log_from: number;
  readonly log_to: number;
  readonly data_sha256: string;
}

export interface Manifest {
  readonly app: string;
  readonly release: number;
  readonly created: number;
  readonly min_engine: string;
  readonly sizes: Sizes;
  readonly files: ReadonlyMap<string, FileEntry>;
  readonly exploration: Exploration;
  readonly kinds: readonly string[];
  readonly lineage: Lineage;
  readonly prefixes: Prefixes;
  readonly experiment: Experiment | null;
  readonly rules: Rules | null;
  readonly reports: Readonly<Record<string, unknown>>;
  readonly schema: 1;
}
