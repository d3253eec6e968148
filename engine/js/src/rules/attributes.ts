/**
 * Attributes of items as typed columns, which rules compare as whole arrays.
 *
 * Types: numbers, times (ISO 8601 text), booleans, and categories: texts, lists, and mixtures. A
 * row without the attribute, or with a value that does not fit its type, meets no comparison.
 */

import { shown } from "../errors.js";
import { isList } from "../json.js";
import type { AttributeColumns } from "../bundle/columns.js";
import { secondsOf } from "./isoTime.js";
import type { Bits, Comparison, Scalar } from "./types.js";
import { ORDERING } from "./where.js";

/** The types of attributes that rules tell apart. */
export type Kind = "number" | "time" | "boolean" | "categories";

export type ScalarKind = Exclude<Kind, "categories">;

const EXPECTED: Record<ScalarKind, string> = {
  number: "a number",
  time: "a time, as ISO 8601 text or in seconds since 1970",
  boolean: "true or false",
};
const TYPE_NAMES = { string: "texts", number: "numbers", boolean: "booleans" } as const;

type TypeName = (typeof TYPE_NAMES)[keyof typeof TYPE_NAMES];

/** The values of one attribute, one row after the other. */
export interface Column {
  readonly kind: Kind;

  /** Whether the column says what fits the attribute. */
  readonly hasTypes: boolean;

  /** Returns the column with other values in some rows. */
  patched(changes: ReadonlyMap<number, unknown>): Column;

  /** Returns what is expected in place of a value that does not fit the column, else null. */
  fault(value: unknown): string | null;

  /** Throws `TypeError` for an operand or operator of another type; `place` names both. */
  check(comparison: Comparison, place: string): void;

  /** Returns which rows meet a checked comparison. */
  compare(comparison: Comparison): Bits;
}

/** Numbers, times (seconds since 1970) or booleans (0 and 1), one a row, NaN where missing. */
class ScalarColumn implements Column {
  readonly hasTypes = true;

  constructor(
    readonly kind: ScalarKind,
    private readonly numbers: Float64Array,
  ) {}

  patched(changes: ReadonlyMap<number, unknown>): ScalarColumn {
    const numbers = this.numbers.slice();
    for (const [row, value] of changes) {
      numbers[row] = asNumber(value, this.kind);
    }
    return new ScalarColumn(this.kind, numbers);
  }

  fault(value: unknown): string | null {
    return scalarFault(value, this.kind);
  }

  check(comparison: Comparison, place: string): void {
    const operator = comparison.operator;
    if (operator === "exists") {
      return;
    }
    if (ORDERING.has(operator) && this.kind === "boolean") {
      throw new TypeError(`${place}: ${operator}: expected numbers or times, found booleans`);
    }
    for (const operand of comparison.operands) {
      if (Number.isNaN(asNumber(operand, this.kind))) {
        throw new TypeError(
          `${place}: ${operator}: expected ${EXPECTED[this.kind]}, found ${shown(operand)}`,
        );
      }
    }
  }

  compare(comparison: Comparison): Bits {
    const operator = comparison.operator;
    if (operator === "exists") {
      const wanted = comparison.operands[0] === true;
      return this.where((number) => !Number.isNaN(number) === wanted);
    }
    const wanted = comparison.operands.map((operand) => asNumber(operand, this.kind));
    const bound = wanted[0]!;
    switch (operator) {
      case "eq":
        return this.where((number) => number === bound);
      case "lt":
        return this.where((number) => number < bound);
      case "le":
        return this.where((number) => number <= bound);
      case "gt":
        return this.where((number) => number > bound);
      case "ge":
        return this.where((number) => number >= bound);
    }
    const distinct = new Set(wanted);
    if (operator === "all" && distinct.size > 1) {
      return new Uint8Array(this.numbers.length);
    }
    return this.where((number) => distinct.has(number));
  }

  private where(holds: (number: number) => boolean): Bits {
    const found = new Uint8Array(this.numbers.length);
    for (let row = 0; row < found.length; row++) {
      found[row] = holds(this.numbers[row]!) ? 1 : 0;
    }
    return found;
  }
}

/** The entries of a category column: the row `rows[i]` has the value of code `codes[i]`. */
interface Entries {
  readonly rows: Int32Array;
  readonly codes: Int32Array;
  readonly codeOf: ReadonlyMap<Scalar, number>;

  /** Which rows have the attribute at all, one 0 or 1 each. */
  readonly isPresent: Bits;
}

/** Texts, or several values a row. */
class CategoryColumn implements Column {
  readonly kind = "categories";
  readonly hasTypes: boolean;
  private readonly types: ReadonlySet<TypeName>;

  constructor(private readonly entries: Entries) {
    this.types = new Set([...entries.codeOf.keys()].map(typeNameOf));
    this.hasTypes = this.types.size > 0;
  }

  patched(changes: ReadonlyMap<number, unknown>): CategoryColumn {
    const codeOf = new Map(this.entries.codeOf);
    const isPresent = this.entries.isPresent.slice();
    const rows: number[] = [];
    const codes: number[] = [];
    this.entries.rows.forEach((row, i) => {
      if (!changes.has(row)) {
        rows.push(row);
        codes.push(this.entries.codes[i]!);
      }
    });
    for (const [row, value] of changes) {
      isPresent[row] = isMissing(value) ? 0 : 1;
      addEntries(row, value, rows, codes, codeOf);
    }
    return categoryColumn(rows, codes, codeOf, isPresent);
  }

  fault(value: unknown): string | null {
    const fits = elementsOf(value).every((element) => this.types.has(typeNameOf(element)));
    return this.hasTypes && !fits ? this.holds : null;
  }

  check(comparison: Comparison, place: string): void {
    const operator = comparison.operator;
    if (operator === "exists") {
      return;
    }
    if (ORDERING.has(operator)) {
      throw new TypeError(
        `${place}: ${operator}: expected an attribute of numbers or times, found one that` +
          ` holds ${this.holds}; use eq, in, any or all`,
      );
    }
    for (const operand of comparison.operands) {
      if (this.hasTypes && !this.types.has(typeNameOf(operand))) {
        throw new TypeError(
          `${place}: ${operator}: expected ${this.holds}, found ${shown(operand)}`,
        );
      }
    }
  }

  compare(comparison: Comparison): Bits {
    if (comparison.operator === "exists") {
      const wanted = comparison.operands[0] === true ? 1 : 0;
      return this.entries.isPresent.map((isPresent) => (isPresent === wanted ? 1 : 0));
    }
    if (comparison.operator !== "all") {
      return this.rowsWith(comparison.operands);
    }
    const found = this.rowsWith(comparison.operands.slice(0, 1));
    for (const operand of comparison.operands.slice(1)) {
      const others = this.rowsWith([operand]);
      for (let row = 0; row < found.length; row++) {
        found[row]! &= others[row]!;
      }
    }
    return found;
  }

  private get holds(): string {
    return [...this.types].sort().join(" and ") || "no values";
  }

  private rowsWith(operands: readonly Scalar[]): Bits {
    const { rows, codes, codeOf, isPresent } = this.entries;
    const isWanted = new Uint8Array(codeOf.size);
    for (const operand of operands) {
      const code = codeOf.get(operand);
      if (code !== undefined) {
        isWanted[code] = 1;
      }
    }
    const found = new Uint8Array(isPresent.length);
    for (let i = 0; i < rows.length; i++) {
      if (isWanted[codes[i]!] === 1) {
        found[rows[i]!] = 1;
      }
    }
    return found;
  }
}

/** Returns the type of an attribute, given its values; null where no row has one. */
export function kindOf(values: Iterable<unknown>): Kind | null {
  const types = new Set<string>();
  let isAllTimes = true;
  for (const value of values) {
    if (value !== null) {
      types.add(typeof value);
      isAllTimes &&= typeof value === "string" && !Number.isNaN(secondsOf(value));
    }
  }
  if (types.size === 0) {
    return null;
  }
  if (types.size === 1 && types.has("boolean")) {
    return "boolean";
  }
  if (types.size === 1 && types.has("number")) {
    return "number";
  }
  return isAllTimes ? "time" : "categories";
}

/** Returns the column of an attribute, given its value in each row, null where it is missing. */
export function makeColumn(values: readonly unknown[], kind: Kind): Column {
  if (kind !== "categories") {
    return new ScalarColumn(kind, Float64Array.from(values, (value) => asNumber(value, kind)));
  }
  const isPresent = Uint8Array.from(values, (value) => (isMissing(value) ? 0 : 1));
  const rows: number[] = [];
  const codes: number[] = [];
  const codeOf = new Map<Scalar, number>();
  values.forEach((value, row) => addEntries(row, value, rows, codes, codeOf));
  return categoryColumn(rows, codes, codeOf, isPresent);
}

/** Returns the column of an attribute that none of some rows has. */
export function emptyColumn(kind: Kind, rows: number): Column {
  return makeColumn(new Array<unknown>(rows).fill(null), kind);
}

/** Returns a column of a bundle's file, any but a text; throws `BundleError` where it is wrong. */
export function storedColumn(columns: AttributeColumns, attribute: string): Column {
  const type = columns.types.get(attribute);
  if (type === "number" || type === "time" || type === "boolean") {
    return new ScalarColumn(type, columns.numbers(attribute));
  }
  const { rows, codes, present, vocabulary } = columns.categories(attribute);
  const codeOf = new Map(vocabulary.map((value, code) => [value, code]));
  return new CategoryColumn({ rows, codes, codeOf, isPresent: present });
}

/** Returns what is expected in place of a value that fits no column of a type, else null. */
export function scalarFault(value: unknown, kind: ScalarKind): string | null {
  return Number.isNaN(asNumber(value, kind)) ? EXPECTED[kind] : null;
}

/** Returns what is expected in place of a value that is no text, or list of texts, else null. */
export function textFault(value: unknown): string | null {
  const elements = isList(value) ? value : [value];
  return elements.every((each) => typeof each === "string") ? null : "texts";
}

/** Returns what is expected in place of a value that is no vector of a width, else null. */
export function vectorFault(value: unknown, width: number | null): string | null {
  const isVector = isList(value) && (width === null || value.length === width);
  if (isVector && value.every((each) => typeof each === "number")) {
    return null;
  }
  return width === null ? "a list of numbers" : `a list of ${width} numbers`;
}

function categoryColumn(
  rows: readonly number[],
  codes: readonly number[],
  codeOf: ReadonlyMap<Scalar, number>,
  isPresent: Bits,
): CategoryColumn {
  return new CategoryColumn({
    rows: Int32Array.from(rows),
    codes: Int32Array.from(codes),
    codeOf,
    isPresent,
  });
}

/** Appends the values of a row, each once. */
function addEntries(
  row: number,
  value: unknown,
  rows: number[],
  codes: number[],
  codeOf: Map<Scalar, number>,
): void {
  for (const element of new Set(elementsOf(value))) {
    const code = codeOf.get(element) ?? codeOf.size;
    codeOf.set(element, code);
    rows.push(row);
    codes.push(code);
  }
}

function isMissing(value: unknown): boolean {
  return value === null || (isList(value) && value.length === 0);
}

/** Returns the texts, numbers and booleans of a value; anything else is none. */
export function elementsOf(value: unknown): Scalar[] {
  const elements = isList(value) ? value : [value];
  return elements.filter((element) => element !== null && typeof element !== "object") as Scalar[];
}

function typeNameOf(value: Scalar): TypeName {
  return TYPE_NAMES[typeof value as keyof typeof TYPE_NAMES];
}

/** Returns a value as the number that a scalar column holds, NaN for one of another type. */
export function asNumber(value: unknown, kind: ScalarKind): number {
  if (typeof value === "boolean") {
    return kind === "boolean" ? Number(value) : NaN;
  }
  if (kind === "boolean") {
    return NaN;
  }
  if (typeof value === "number") {
    return value;
  }
  return kind === "time" && typeof value === "string" ? secondsOf(value) : NaN;
}
