/**
 * Opens a bundle: checks versions, lengths, hashes and headers, and views the tensors without
 * copying them. `verify` adds the checks of all values.
 */

import { BundleError } from "../errors.js";
import { countCharacters } from "../unicode.js";
import { VERSION } from "../version.js";
import { type AttributeColumns, COLUMNS_FILE, readColumns } from "./columns.js";
import { decodeJson } from "./decodeJson.js";
import { type FeatureTensors, readFeatures } from "./features.js";
import { checkListed, readFile, readManifest } from "./files.js";
import { idHash, positionOf } from "./idHash.js";
import { engineVersionFault, type Manifest, MAX_ID } from "./manifest.js";
import { readPolicy, type Policy } from "./policy.js";
import type { BundleSource } from "./source.js";
import { expectTensor, type Tensors, viewTensors } from "./tensors.js";
import { checkValues } from "./values.js";

/** The files that are read when a bundle is opened. */
const OPENED: ReadonlySet<string> = new Set([
  "items.safetensors", "policy.safetensors", "catalog.jsonl", COLUMNS_FILE,
]);

/** The tensors of items.safetensors: item i has the vector `rows[i] * scale[i]`. */
export interface Items {
  /** [n, d] */
  readonly rows: Int8Array;

  /** [n] */
  readonly scale: Float32Array;

  /** [n], added to an item's score. */
  readonly bias: Float32Array;

  /** [n + 1]: item i has the bytes `offset[i]` to `offset[i + 1]` of catalog.jsonl. */
  readonly offset: Float64Array;

  /** [2 n]: a hash is two words, the lower one first; hashes are ascending. */
  readonly idHash: Uint32Array;

  /** [n]: the row of each hash. */
  readonly idRow: Int32Array;

  /** The rows of items with few impressions in the fleet, ascending. */
  readonly newcomers: Int32Array;
}

/** One opened bundle. Immutable: an update opens another. */
export class Bundle {
  private constructor(
    readonly source: BundleSource,
    readonly manifest: Manifest,
    readonly items: Items,
    readonly policy: Policy,
    readonly catalog: Uint8Array,

    /** The attributes as typed columns, in bundles that have them. */
    readonly columns: AttributeColumns | null,

    /** How attributes place items that a device adds, in bundles that have such features. */
    readonly itemFeatures: FeatureTensors | null,

    /** How declared context features move the user vector, in bundles that have them. */
    readonly contextFeatures: FeatureTensors | null,
  ) {}

  /**
   * Returns the bundle of a source. Files that only texts need are read when they are needed.
   *
   * Each file is checked against its hash when it is read. `verify` reads all files and checks all
   * values. Throws `BundleError` when the bundle is incomplete, malformed or altered.
   */
  static open(source: BundleSource, verify = false): Promise<Bundle> {
    return freshIfStale(source, (isFresh) => Bundle.#open(source, verify, isFresh));
  }

  static async #open(source: BundleSource, verify: boolean, isFresh: boolean): Promise<Bundle> {
    const manifest = await readManifest(source, isFresh);
    const fault = engineVersionFault(manifest, VERSION);
    if (fault !== null) {
      throw new BundleError(fault);
    }
    await checkListed(source, manifest);
    const read = (name: string) => readFile(source, manifest, name, isFresh);
    const [items, policy, catalog, columns] = await Promise.all([
      read("items.safetensors"),
      read("policy.safetensors"),
      read("catalog.jsonl"),
      manifest.files.has(COLUMNS_FILE) ? read(COLUMNS_FILE) : null,
    ]);
    const { items: n, dim } = manifest.sizes;
    const tensors = viewTensors("policy.safetensors", policy);
    const contexts = readFeatures(tensors, "context", dim);
    const bundle = new Bundle(
      source,
      manifest,
      readItems(manifest, items),
      readPolicy(manifest, tensors, contexts),
      catalog,
      columns && readColumns(viewTensors(COLUMNS_FILE, columns), n),
      readFeatures(tensors, "item", dim),
      contexts,
    );
    const { offset } = bundle.items;
    if (offset[0] !== 0 || offset[offset.length - 1] !== catalog.length) {
      throw new BundleError(
        `items.safetensors: offset: expected to span the ${catalog.length} bytes of catalog.jsonl`,
      );
    }
    if (verify) {
      const others = [...manifest.files.keys()].filter((name) => !OPENED.has(name));
      await Promise.all(others.map(read));
      checkValues(bundle);
    }
    return bundle;
  }

  /** Returns a file of the manifest; throws `BundleError` where it is not what that says. */
  read(name: string): Promise<Uint8Array> {
    const { source, manifest } = this;
    return freshIfStale(source, (isFresh) => readFile(source, manifest, name, isFresh));
  }

  /**
   * Returns the catalog's entry of one row: id, title, and attributes.
   *
   * Throws `BundleError` when it is malformed.
   */
  record(row: number): Record<string, unknown> {
    const place = `catalog.jsonl: row ${row}`;
    const entry = decodeJson(place, this.#entry(row));
    const id = entry["id"];
    const length = typeof id === "string" ? countCharacters(id) : 0;
    if (length < 1 || length > MAX_ID) {
      const found = JSON.stringify(id)?.slice(0, 80);
      throw new BundleError(
        `${place}: id: expected a text of 1 to ${MAX_ID} characters, found ${found}`,
      );
    }
    return entry;
  }

  /** Yields every entry of the catalog in the order of the rows; ids are not checked. */
  *records(): IterableIterator<Record<string, unknown>> {
    for (let row = 0; row < this.manifest.sizes.items; row++) {
      yield decodeJson(`catalog.jsonl: row ${row}`, this.#entry(row));
    }
  }

  /** Returns the row of an item id, or null when it is not in the bundle. */
  find(item: string): number | null {
    const hash = idHash(item);
    const { idHash: hashes, idRow } = this.items;
    let position = positionOf(hashes, hash);
    // Equal hashes stand side by side: compare the ids in the catalog.
    while (hashes[2 * position] === hash[0] && hashes[2 * position + 1] === hash[1]) {
      const row = idRow[position]!;
      if (this.record(row)["id"] === item) {
        return row;
      }
      position += 1;
    }
    return null;
  }

  #entry(row: number): Uint8Array {
    return this.catalog.subarray(this.items.offset[row], this.items.offset[row + 1]);
  }
}

/**
 * Returns what `read` does, called again without caches where it throws `BundleError`.
 *
 * A cache may have kept files of an earlier release under the same address.
 */
async function freshIfStale<Result>(
  source: BundleSource,
  read: (isFresh: boolean) => Promise<Result>,
): Promise<Result> {
  try {
    return await read(false);
  } catch (error) {
    if (error instanceof BundleError && source.mayBeStale === true) {
      return read(true);
    }
    throw error;
  }
}

function readItems(manifest: Manifest, data: Uint8Array): Items {
  const file = "items.safetensors";
  const { items: n, dim: d } = manifest.sizes;
  const tensors = viewTensors(file, data);
  return {
    rows: expectTensor(tensors, file, "rows", "I8", [n, d]),
    scale: expectTensor(tensors, file, "scale", "F32", [n]),
    bias: expectTensor(tensors, file, "bias", "F32", [n]),
    offset: numbersOf(expectTensor(tensors, file, "offset", "I64", [n + 1])),
    idHash: expectTensor(tensors, file, "id_hash", "U64", [n]),
    idRow: expectTensor(tensors, file, "id_row", "I32", [n]),
    newcomers: readNewcomers(tensors, file, n),
  };
}

/** Returns pairs of words as numbers: those from 2^53 on are rounded, and lie outside any file. */
function numbersOf(words: Uint32Array): Float64Array {
  const numbers = new Float64Array(words.length / 2);
  for (let i = 0; i < numbers.length; i++) {
    numbers[i] = words[2 * i]! + (words[2 * i + 1]! | 0) * 2 ** 32;
  }
  return numbers;
}

/** Returns the rows of newcomers; a bundle without the tensor has none. */
function readNewcomers(tensors: Tensors, file: string, n: number): Int32Array {
  const tensor = tensors.get("newcomers");
  if (tensor === undefined) {
    return new Int32Array(0);
  }
  if (tensor.shape.length !== 1 || tensor.shape[0]! > n) {
    throw new BundleError(
      `${file}: newcomers: expected at most ${n} rows, found shape [${tensor.shape.join(", ")}]`,
    );
  }
  return expectTensor(tensors, file, "newcomers", "I32", tensor.shape);
}
