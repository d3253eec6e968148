/** Opens the engine on the bundle beside the page, with the share of exploration that was set. */

import { Engine, FetchSource, loadKernels, type BundleSource } from "../src/index.js";
import type { CatalogEntry } from "./columns.js";
import type { ExplorationSetting } from "./controls.js";

/** What the page's server says in `config.json`. */
export interface PageConfig {
  /** Where the bundle is, relative to the page. */
  readonly bundle: string;

  /** Where rewards are sent; null to send nothing. */
  readonly collector: string | null;

  /** The bearer token for it. */
  readonly token: string | null;
}

const MANIFEST = "manifest.json";
const STATE = "sanderling";

/** The files of the bundle, each fetched once. */
export class PageBundle {
  private readonly files = new Map<string, Promise<Uint8Array | null>>();
  private readonly source: BundleSource;

  constructor(private readonly config: PageConfig) {
    this.source = new FetchSource(new URL(config.bundle, document.baseURI));
  }

  /** Returns an engine; null explores as the bundle says. */
  async open(epsilon: number | null): Promise<Engine> {
    const source: BundleSource = {
      name: this.source.name,
      read: async (name) => {
        const file = await this.read(name);
        const isChanged = name === MANIFEST && epsilon !== null && file !== null;
        return isChanged ? withEpsilon(file, epsilon) : file;
      },
    };
    const { collector, token } = this.config;
    return Engine.open(source, {
      kernels: await loadKernels(),
      state: STATE,
      collector: collector === null ? null : new URL(collector, document.baseURI).href,
      token: collector === null ? null : token,
    });
  }

  /** Returns how the bundle explores. */
  async exploration(): Promise<ExplorationSetting> {
    const { exploration } = JSON.parse(text(await this.read(MANIFEST)));
    return { epsilon: 0.1, pool: 50, ...exploration };
  }

  /** Returns the catalog's entries. */
  async catalog(): Promise<readonly CatalogEntry[]> {
    const lines = text(await this.read("catalog.jsonl")).split("\n").filter(Boolean);
    return lines.map((line) => {
      const { id, title, ...attributes } = JSON.parse(line);
      return { id, title, attributes };
    });
  }

  private read(name: string): Promise<Uint8Array | null> {
    const file = this.files.get(name) ?? this.source.read(name);
    this.files.set(name, file);
    return file;
  }
}

function text(bytes: Uint8Array | null): string {
  if (bytes === null) {
    throw new Error("expected the bundle beside the page, found a file of it missing");
  }
  return new TextDecoder().decode(bytes);
}

/** Returns a manifest whose policy explores more or less; the events say so with each decision. */
function withEpsilon(manifest: Uint8Array, epsilon: number): Uint8Array {
  const fields = JSON.parse(text(manifest));
  fields.exploration = { ...fields.exploration, epsilon };
  return new TextEncoder().encode(JSON.stringify(fields));
}
