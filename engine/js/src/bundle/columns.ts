/**
 * The attributes of a bundle's items as typed columns, in an optional file.
 *
 * `schema` names all attributes with their types. Attribute i has the tensors `i.values`, or
 * `i.rows`, `i.codes`, `i.present` and `i.vocabulary`; texts have none and are read from the
 * catalog, and of vectors a device needs the items' rows alone. docs/BUNDLE.md describes the file.
 */

import { BundleError } from "../errors.js";
import { isList, isObject } from "../json.js";
import { decodeText, parseJson } from "./decodeJson.js";
import { expectTensor, type Tensors } from "./tensors.js";

export const COLUMNS_FILE = "columns.safetensors";
export const MAX_ATTRIBUTES = 1000;

export const TYPES = [
  "text", "category", "categories", "number", "boolean", "time", "vector",
] as const;

/** How an attribute is stored. */
export type AttributeType = (typeof TYPES)[number];

/** Entry i says that the row `rows[i]` has the value `vocabulary[codes[i]]`. */
export interface CategoryArrays {
  readonly rows: Int32Array;
  readonly codes: Int32Array;

  /** [n], 1 for the rows that have the attribute. */
  readonly present: Uint8Array;

  readonly vocabulary: readonly (string | number | boolean)[];
}

/** The columns of a file; those of an attribute are checked when they are read. */
export class AttributeColumns {
  /** By attribute its type; those of which no tensor is stored too. */
  readonly types: ReadonlyMap<string, AttributeType>;

  private readonly place: ReadonlyMap<string, number>;

  constructor(
    schema: readonly { readonly name: string; readonly type: AttributeType }[],
    private readonly tensors: Tensors,
    private readonly rows: number,
  ) {
    this.types = new Map(schema.map(({ name, type }) => [name, type]));
    this.place = new Map(schema.map(({ name }, i) => [name, i]));
  }

  /**
   * Returns the numbers [n] of a number, a boolean (0, 1) or a time (seconds since 1970), NaN where
   * missing; throws `BundleError` where the file has others.
   */
  numbers(attribute: string): Float64Array {
    const name = `${this.place.get(attribute)}.values`;
    const numbers = expectTensor(this.tensors, COLUMNS_FILE, name, "F64", [this.rows]);
    if (this.types.get(attribute) === "boolean") {
      if (!numbers.every((number) => number === 0 || number === 1 || Number.isNaN(number))) {
        throw new BundleError(
          `${COLUMNS_FILE}: ${name}: expected 0, 1 or NaN, found another number`,
        );
      }
    }
    return numbers;
  }

  /** Returns the entries of a category or categories; throws `BundleError` for wrong ones. */
  categories(attribute: string): CategoryArrays {
    const place = this.place.get(attribute)!;
    const size = this.tensors.get(`${place}.codes`)?.data.length ?? 0;
    const rows = expectTensor(this.tensors, COLUMNS_FILE, `${place}.rows`, "I32", [size]);
    const codes = expectTensor(this.tensors, COLUMNS_FILE, `${place}.codes`, "I32", [size]);
    const present = expectTensor(this.tensors, COLUMNS_FILE, `${place}.present`, "U8", [this.rows]);
    const vocabulary = readJson(this.tensors, `${place}.vocabulary`);
    if (!isList(vocabulary) || !vocabulary.every(isScalar)) {
      throw new BundleError(
        `${COLUMNS_FILE}: ${place}.vocabulary: expected a list of texts, numbers or booleans`,
      );
    }
    const limits = [
      ["rows", rows, this.rows],
      ["codes", codes, vocabulary.length],
      ["present", present, 2],
    ] as const;
    for (const [name, values, limit] of limits) {
      if (values.some((value) => value < 0 || value >= limit)) {
        throw new BundleError(`${COLUMNS_FILE}: ${place}.${name}: expected 0 to ${limit - 1}`);
      }
    }
    return { rows, codes, present, vocabulary };
  }

  /** Reads all columns; throws `BundleError` for the first that is wrong. */
  check(): void {
    for (const [attribute, type] of this.types) {
      if (type === "category" || type === "categories") {
        this.categories(attribute);
      } else if (type !== "text" && type !== "vector") {
        this.numbers(attribute);
      }
    }
  }
}

/** Returns the columns of a bundle of n items; throws `BundleError` for a malformed file. */
export function readColumns(tensors: Tensors, n: number): AttributeColumns {
  const read = readJson(tensors, "schema");
  if (!isList(read) || !read.every(isSchema)) {
    throw new BundleError(
      `${COLUMNS_FILE}: schema: expected a list of attributes, each with a name and a type, one` +
        ` of ${TYPES.join(", ")}`,
    );
  }
  const schema = read as readonly { name: string; type: AttributeType }[];
  const names = new Set(schema.map(({ name }) => name));
  if (names.size !== schema.length || schema.length > MAX_ATTRIBUTES) {
    throw new BundleError(
      `${COLUMNS_FILE}: schema: expected at most ${MAX_ATTRIBUTES} attributes of different names,` +
        ` found ${schema.length}`,
    );
  }
  return new AttributeColumns(schema, tensors, n);
}

function readJson(tensors: Tensors, name: string): unknown {
  const bytes = tensors.get(name)?.data ?? new Uint8Array();
  const place = `${COLUMNS_FILE}: ${name}`;
  return parseJson(place, decodeText(place, bytes as Uint8Array));
}

function isSchema(value: unknown): boolean {
  return (
    isObject(value) &&
    Object.keys(value).length === 2 &&
    typeof value["name"] === "string" &&
    TYPES.some((type) => type === value["type"])
  );
}

function isScalar(value: unknown): value is string | number | boolean {
  return value !== null && typeof value !== "object";
}
