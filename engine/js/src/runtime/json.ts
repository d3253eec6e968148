/**
 * JSON with the bytes that Python's msgspec writes: fields in the order of their description,
 * floats with a point or an exponent, absent fields left out.
 */

import { EventError, shown } from "../errors.js";
import type { StructSpec, TypeSpec } from "./structs.js";
import { isWellFormed } from "./text.js";

/** msgspec writes an exponent from 1e16 on, and below 1e-5. */
const FIRST_LARGE = 16;
const LAST_SMALL = -5;

/**
 * Returns a value as JSON; throws `EventError` for one that is not of its type.
 *
 * Ranges are not checked, as in Python.
 */
export function encodeJson(spec: TypeSpec, value: unknown): string {
  switch (spec.kind) {
    case "text":
      return encodeText(value as string);
    case "int":
      return encodeInt(value as number);
    case "float":
      return encodeFloat(value as number);
    case "list":
      return `[${Array.from(value as Iterable<unknown>, (x) => encodeJson(spec.of, x)).join(",")}]`;
    case "tuple":
      return `[${spec.of.map((of, i) => encodeJson(of, (value as unknown[])[i])).join(",")}]`;
    case "map":
      return encodeMap(spec, value as ReadonlyMap<string, unknown>);
    case "struct":
      return encodeStruct(spec, value as Record<string, unknown>);
    default:
      return JSON.stringify(value);
  }
}

/** Returns a text as JSON; throws `EventError` for half of a character. */
export function encodeText(value: string): string {
  if (typeof value !== "string" || !isWellFormed(value)) {
    throw new EventError(
      `expected a text of whole characters, found ${shown(value)}` +
        " (a lone surrogate is half of one)",
    );
  }
  return JSON.stringify(value);
}

/** Returns a finite number as JSON in the form of a float of Python: `1.0`, `1e-7`, `-0.0`. */
export function encodeFloat(value: number): string {
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw new EventError(`expected a finite number, found ${shown(value)}`);
  }
  const [mantissa = "", exponent = ""] = value.toExponential().split("e");
  const power = Number(exponent);
  if (power >= FIRST_LARGE || power < LAST_SMALL) {
    return `${mantissa}e${power}`;
  }
  // Both languages write the fewest digits that read back as the same number.
  const plain = power < 0 ? smallFloat(mantissa, power) : String(value);
  const sign = Object.is(value, -0) ? "-" : "";
  return sign + (plain.includes(".") ? plain : `${plain}.0`);
}

/** Returns a whole number as JSON. */
function encodeInt(value: number): string {
  if (!Number.isInteger(value) || Math.abs(value) > 2 ** 53) {
    throw new EventError(`expected a whole number of at most 2^53, found ${shown(value)}`);
  }
  return String(value === 0 ? 0 : value); // -0 is 0
}

/** Returns a number below 1 without an exponent, which JavaScript writes below 1e-6. */
function smallFloat(mantissa: string, power: number): string {
  const sign = mantissa.startsWith("-") ? "-" : "";
  return `${sign}0.${"0".repeat(-power - 1)}${mantissa.replace(/[-.]/g, "")}`;
}

function encodeMap(
  spec: TypeSpec & { kind: "map" },
  entries: ReadonlyMap<string, unknown>,
): string {
  const parts = Array.from(
    entries,
    ([key, value]) => `${encodeText(key)}:${encodeJson(spec.of, value)}`,
  );
  return `{${parts.join(",")}}`;
}

function encodeStruct(spec: StructSpec, value: Record<string, unknown>): string {
  const parts = spec.tag === undefined ? [] : [`"type":${JSON.stringify(spec.tag)}`];
  for (const { name, type, nullable, optional } of spec.fields) {
    const each = value[name];
    if (each === undefined && optional) {
      continue;
    }
    const isNull = nullable && each === null;
    parts.push(`"${name}":${isNull ? "null" : encodeJson(type, each)}`);
  }
  return `{${parts.join(",")}}`;
}
