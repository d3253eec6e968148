/**
 * Descriptions of JSON values, by which they are checked, filled with defaults, and encoded.
 *
 * The descriptions themselves are generated from the structs of the Python engine, see
 * `tools/js_types.py`.
 */

import { EventError, shown, typeName } from "../errors.js";

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
  | { readonly kind: "bool" | "record" }
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
 * Throws `EventError` with the path of the first fault.
 */
export function checked(spec: TypeSpec, value: unknown, path = "$"): unknown {
  switch (spec.kind) {
    case "struct":
      return checkedStruct(spec, value, path);
    case "list":
      expect(Array.isArray(value), "an array", value, path);
      expect(isWithin((value as unknown[]).length, spec), lengthOf(spec), value, path);
      return (value as unknown[]).map((each, i) => checked(spec.of, each, `${path}[${i}]`));
    case "tuple":
      expect(
        Array.isArray(value) && value.length === spec.of.length,
        `an array of ${spec.of.length}`,
        value,
        path,
      );
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
      expect(typeof value === "string", "a string", value, path);
      // Python counts code points, JavaScript UTF-16 units.
      expect(isWithin([...(value as string)].length, spec), lengthOf(spec), value, path);
      expect(spec.pattern?.test(value as string) ?? true, `${spec.pattern}`, value, path);
      return;
    case "int":
      expect(Number.isInteger(value), "a whole number", value, path);
      expect(isWithin(value as number, spec), rangeOf(spec), value, path);
      return;
    case "float":
      expect(typeof value === "number", "a number", value, path);
      expect(isWithin(value as number, spec), rangeOf(spec), value, path);
      return;
    case "bool":
      expect(typeof value === "boolean", "true or false", value, path);
      return;
    case "choice":
      expect(spec.values.includes(value), `one of ${spec.values.join(", ")}`, value, path);
      return;
    default:
      expect(typeName(value) === "object", "an object", value, path);
  }
}

function checkedStruct(spec: StructSpec, value: unknown, path: string): unknown {
  expect(typeName(value) === "object", "an object", value, path);
  const given = value as Record<string, unknown>;
  const made: Record<string, unknown> = {};
  const names = new Set(spec.fields.map((each) => each.name));
  if (spec.tag !== undefined) {
    expect(given["type"] === spec.tag, spec.tag, given["type"], `${path}.type`);
    made["type"] = spec.tag;
    names.add("type");
  }
  if (!spec.lenient) {
    const unknown = Object.keys(given).find((name) => !names.has(name));
    expect(unknown === undefined, `no field \`${unknown}\``, given, path);
  }
  for (const { name, type, nullable, optional, fallback } of spec.fields) {
    const at = `${path}.${name}`;
    // Not `given[name]`: a name such as "constructor" would be found in the prototype.
    if (!Object.hasOwn(given, name)) {
      expect(optional || fallback !== undefined, `a field \`${name}\``, given, path);
      if (fallback !== undefined) {
        made[name] = fallback();
      }
    } else {
      made[name] = nullable && given[name] === null ? null : checked(type, given[name], at);
    }
  }
  return made;
}

function checkedMap(
  spec: TypeSpec & { kind: "map" },
  value: unknown,
  path: string,
): Map<string, unknown> {
  expect(typeName(value) === "object", "an object", value, path);
  const made = new Map<string, unknown>();
  for (const [key, each] of Object.entries(value as object)) {
    checked(spec.key, key, path);
    made.set(key, checked(spec.of, each, `${path}[${JSON.stringify(key)}]`));
  }
  return made;
}

function isWithin(number: number, { min, max, above, below }: Range): boolean {
  return (
    (min === undefined || number >= min) &&
    (max === undefined || number <= max) &&
    (above === undefined || number > above) &&
    (below === undefined || number < below)
  );
}

function rangeOf({ min, max, above, below }: Range): string {
  const parts = [
    min === undefined ? "" : `>= ${min}`,
    max === undefined ? "" : `<= ${max}`,
    above === undefined ? "" : `> ${above}`,
    below === undefined ? "" : `< ${below}`,
  ];
  return `a number ${parts.filter(Boolean).join(" and ")}`;
}

function lengthOf(range: Range): string {
  return rangeOf(range).replace("a number", "a length");
}

function expect(holds: boolean, what: string, found: unknown, path: string): void {
  if (!holds) {
    throw new EventError(`expected ${what}, found ${shown(found)} at ${path}`);
  }
}
