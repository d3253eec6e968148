/**
 * Descriptions of JSON values, by which they are checked, filled with defaults, and encoded.
 *
 * The descriptions themselves are generated from the structs of the Python engine, see
 * `tools/js_types.py`.
 */

import { EventError, shown, typeName } from "../errors.js";
import { countCharacters } from "../unicode.js";

/** The range of a number, or of a length. */
export interface Range {
  readonly min?: number;
  readonly max?: number;
  readonly above?: number;
  readonly below?: number;
}

/** What a value must be. */
export type TypeSpec =
  | ({ readonly kind: "text"; readonly pattern?: RegExp } & Range)
  | ({ readonly kind: "int" | "float" } & Range)
  | { readonly kind: "bool" | "record" | "scalar" }
  | { readonly kind: "choice"; readonly values: readonly unknown[] }
  | ({ readonly kind: "list"; readonly of: TypeSpec } & Range)
  | { readonly kind: "tuple"; readonly of: readonly TypeSpec[] }
  | { readonly kind: "map"; readonly key: TypeSpec; readonly of: TypeSpec }
  | StructSpec;

/** An object with these fields, in this order. */
export interface StructSpec {
  readonly kind: "struct";
  readonly name: string;
  /** The value of the field `type`. */
  readonly tag?: string;
  /** Whether unknown fields are ignored. */
  readonly lenient?: boolean;
  readonly fields: readonly FieldSpec[];
}

/** One field of a struct. */
export interface FieldSpec extends FieldOptions {
  readonly name: string;
  readonly type: TypeSpec;
}

/** Whether a field may be null or absent. */
export interface FieldOptions {
  readonly nullable?: boolean;
  /** Whether the field is left out where it does not apply. */
  readonly optional?: boolean;
  /** Returns the value of a field that is absent. */
  readonly fallback?: () => unknown;
}

export const text = (options: Range & { pattern?: RegExp } = {}): TypeSpec => ({
  kind: "text",
  ...options,
});
export const int = (range: Range = {}): TypeSpec => ({ kind: "int", ...range });
export const float = (range: Range = {}): TypeSpec => ({ kind: "float", ...range });
export const bool = (): TypeSpec => ({ kind: "bool" });
export const record = (): TypeSpec => ({ kind: "record" });
export const scalar = (): TypeSpec => ({ kind: "scalar" });
export const choice = (values: readonly unknown[]): TypeSpec => ({ kind: "choice", values });
export const list = (of: TypeSpec, range: Range = {}): TypeSpec => ({ kind: "list", of, ...range });
export const tuple = (...of: readonly TypeSpec[]): TypeSpec => ({ kind: "tuple", of });
export const map = (key: TypeSpec, of: TypeSpec): TypeSpec => ({ kind: "map", key, of });

/** Returns the description of a field. */
export function field(name: string, type: TypeSpec, options: FieldOptions = {}): FieldSpec {
  return { name, type, ...options };
}

type StructOptions = { readonly tag?: string; readonly lenient?: boolean };

/** Returns the description of a struct. */
export function struct(name: string, fields: readonly FieldSpec[]): StructSpec;
export function struct(
  name: string,
  options: StructOptions,
  fields: readonly FieldSpec[],
): StructSpec;
export function struct(
  name: string,
  options: StructOptions | readonly FieldSpec[],
  fields?: readonly FieldSpec[],
): StructSpec {
  if (fields === undefined) {
    return { kind: "struct", name, fields: options as readonly FieldSpec[] };
  }
  return { kind: "struct", name, ...(options as StructOptions), fields };
}

/**
 * Returns a parsed JSON value with its defaults filled in, maps as `Map`.
 *
 * Throws `EventError` that names the first fault in the words of msgspec, with its path.
 */
export function checked(spec: TypeSpec, value: unknown, path = "$"): unknown {
  switch (spec.kind) {
    case "struct":
      return checkedStruct(spec, value, path);
    case "list":
      expectType(Array.isArray(value), spec, value, path);
      checkRange(spec, (value as unknown[]).length, "`array` of length", String, path);
      return (value as unknown[]).map((each, i) => checked(spec.of, each, `${path}[${i}]`));
    case "tuple":
      expectType(Array.isArray(value), spec, value, path);
      checkLength(spec.of.length, (value as unknown[]).length, path);
      return spec.of.map((of, i) => checked(of, (value as unknown[])[i], `${path}[${i}]`));
    case "map":
      return checkedMap(spec, value, path);
    default:
      checkScalar(spec, value, path);
      return value;
  }
}

function checkScalar(spec: TypeSpec, value: unknown, path: string): void {
  switch (spec.kind) {
    case "text":
      expectType(typeof value === "string", spec, value, path);
      checkText(spec, value as string, path);
      return;
    case "int":
      expectType(Number.isInteger(value), spec, value, path);
      checkRange(spec, value as number, "`int`", String, path);
      return;
    case "float":
      expectType(typeof value === "number", spec, value, path);
      checkRange(spec, value as number, "`float`", pythonFloat, path);
      return;
    case "bool":
      expectType(typeof value === "boolean", spec, value, path);
      return;
    case "scalar":
      expectType(["string", "number", "boolean"].includes(typeof value), spec, value, path);
      return;
    case "choice":
      expectType(typeof value === typeof spec.values[0], spec, value, path);
      if (!spec.values.includes(value)) {
        const found = typeof value === "string" ? `'${value}'` : shown(value);
        fail(`Invalid enum value ${found}`, path);
      }
      return;
    default:
      expectType(isRecord(value), spec, value, path);
  }
}

function checkText(spec: TypeSpec & { kind: "text" }, value: string, path: string): void {
  checkRange(spec, countCharacters(value), "`str` of length", String, path);
  // Python's `$` also matches before a line's end.
  const { pattern } = spec;
  if (pattern && !pattern.test(value) && !pattern.test(value.replace(/\n$/, ""))) {
    fail(`Expected \`str\` matching regex '${pattern.source.replaceAll("\\", "\\\\")}'`, path);
  }
}

function checkedStruct(spec: StructSpec, value: unknown, path: string): unknown {
  expectType(isRecord(value), spec, value, path);
  const given = value as Record<string, unknown>;
  const made: Record<string, unknown> = {};
  if (spec.tag !== undefined) {
    checkTag(spec.tag, given["type"], path);
    made["type"] = spec.tag;
  }
  // In the order of the text, so that the first fault is the first of the text.
  const fields = new Map(spec.fields.map((each) => [each.name, each]));
  for (const [name, each] of Object.entries(given)) {
    const field = fields.get(name);
    if (field !== undefined) {
      const isNull = field.nullable === true && each === null;
      made[name] = isNull ? null : checked(field.type, each, `${path}.${name}`);
    } else if (!spec.lenient && !(spec.tag !== undefined && name === "type")) {
      fail(`Object contains unknown field \`${name}\``, path);
    }
  }
  for (const { name, optional, fallback } of spec.fields) {
    if (Object.hasOwn(made, name)) {
      continue;
    }
    if (fallback !== undefined) {
      made[name] = fallback();
    } else if (!optional) {
      fail(`Object missing required field \`${name}\``, path);
    }
  }
  return made;
}

function checkTag(tag: string, found: unknown, path: string): void {
  if (found === undefined) {
    fail("Object missing required field `type`", path);
  }
  if (found !== tag) {
    fail(`Invalid value ${shown(found)}`, `${path}.type`);
  }
}

function checkedMap(
  spec: TypeSpec & { kind: "map" },
  value: unknown,
  path: string,
): Map<string, unknown> {
  expectType(isRecord(value), spec, value, path);
  const made = new Map<string, unknown>();
  for (const [key, each] of Object.entries(value as object)) {
    checked(spec.key, key, `key\` in \`${path}`);
    made.set(key, checked(spec.of, each, `${path}[...]`));
  }
  return made;
}

const TYPE_NAMES = {
  struct: "object",
  record: "object",
  map: "object",
  list: "array",
  tuple: "array",
  text: "str",
  int: "int",
  float: "float",
  bool: "bool",
  scalar: "bool | int | float | str",
};

function expectType(holds: boolean, spec: TypeSpec, found: unknown, path: string): void {
  if (!holds) {
    const kind = spec.kind === "choice" ? (isText(spec.values[0]) ? "text" : "int") : spec.kind;
    fail(`Expected \`${TYPE_NAMES[kind]}\`, got \`${nameOf(found)}\``, path);
  }
}

function checkLength(length: number, found: number, path: string): void {
  if (found !== length) {
    fail(`Expected \`array\` of length ${length}, got ${found}`, path);
  }
}

/** Checks a number, or a length, against its range; `what` names it, `write` writes limits. */
function checkRange(
  range: Range,
  number: number,
  what: string,
  write: (limit: number) => string,
  path: string,
): void {
  const { min = -Infinity, max = Infinity, above = -Infinity, below = Infinity } = range;
  const limits: [boolean, string, number][] = [
    [number >= min, ">=", min],
    [number <= max, "<=", max],
    [number > above || above === -Infinity, ">", above],
    [number < below || below === Infinity, "<", below],
  ];
  for (const [holds, sign, limit] of limits) {
    if (!holds) {
      fail(`Expected ${what} ${sign} ${write(limit)}`, path);
    }
  }
}

/** Returns a number as Python writes a float: `1.0`, `1e-06`. */
export function pythonFloat(limit: number): string {
  const text = String(limit).replace(/e([+-])(\d)$/, "e$10$2");
  return Number.isInteger(limit) ? `${text}.0` : smallFloat(limit) ?? text;
}

/** JavaScript writes an exponent below 1e-6, Python below 1e-4. */
function smallFloat(limit: number): string | null {
  const magnitude = Math.abs(limit);
  return magnitude < 1e-4 && magnitude >= 1e-6
    ? limit.toExponential().replace(/e-(\d)$/, "e-0$1")
    : null;
}

function isText(value: unknown): boolean {
  return typeof value === "string";
}

function isRecord(value: unknown): boolean {
  return typeName(value) === "object";
}

/** Returns what msgspec calls the type of a value of JSON. */
export function nameOf(value: unknown): string {
  switch (typeof value) {
    case "string":
      return "str";
    case "boolean":
      return "bool";
    case "number":
      return Number.isInteger(value) ? "int" : "float";
    default:
      return typeName(value);
  }
}

function fail(what: string, path: string): never {
  throw new EventError(path === "$" ? what : `${what} - at \`${path}\``);
}
