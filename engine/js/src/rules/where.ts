/**
 * Rules at request: the structured form of `where`, checked once and kept by its canonical form.
 *
 * A rule is an object. Its entries must all hold: an attribute with a value or with operators, or
 * `and`, `or`, `not` with rules. docs/RULES.md describes the form for callers.
 */

import { shown, typeName } from "../errors.js";
import { isList, isObject } from "../json.js";
import { compareTexts, cut } from "../unicode.js";
import type { Bits, Comparison, Condition, Connective, Rule, Scalar } from "./types.js";
import type { Attributes } from "../slate.js";

const MAX_CONDITIONS = 256;
const MAX_DEPTH = 16; // of rules inside rules
const MAX_VALUES = 10_000; // of one `in`, `any` or `all`
const MAX_NESTED = 500; // levels of a value, more than which no rule has

/** Operators that need an order. */
export const ORDERING: ReadonlySet<string> = new Set(["lt", "le", "gt", "ge"]);
const LISTS: ReadonlySet<string> = new Set(["in", "any", "all"]);
const OPERATORS = ["eq", ...ORDERING, ...LISTS, "exists"];
const CONNECTIVES: ReadonlySet<string> = new Set(["and", "or", "not"]);

/**
 * Returns the rule that a caller gave in the argument `name`.
 *
 * Throws `TypeError` for what is no object or holds what JSON cannot, `RangeError` for an unknown
 * operator, a wrong operand, and more than 256 conditions or 16 levels. Whether attributes exist
 * and are of a fitting type shows against a catalog (`matches`).
 */
export function parseRule(where: unknown, name = "where"): Rule {
  if (typeof where !== "object" || where === null || Array.isArray(where)) {
    throw new TypeError(
      `${name}: expected a mapping such as {'price': {'lt': 50}}, found` +
        ` ${typeName(where)} ${shown(where)}`,
    );
  }
  const plain = asJson(where, name, 0);
  return { canonical: canonicalForm(plain), condition: new Parser(name).rule(plain, 0, name) };
}

/** Returns the rule that holds where both do; where one is missing, the other. */
export function both(first: Rule | null, second: Rule | null): Rule | null {
  if (first === null || second === null) {
    return first ?? second;
  }
  return {
    canonical: `{"and":[${first.canonical},${second.canonical}]}`,
    condition: { name: "and", conditions: [first.condition, second.condition] },
  };
}

/** Returns which of some rows meet a condition; `compare` returns it for one comparison. */
export function matches(
  condition: Condition,
  compare: (comparison: Comparison) => Bits,
  rows: number,
): Bits {
  if ("attribute" in condition) {
    return compare(condition);
  }
  const isAnd = condition.name === "and";
  const found = new Uint8Array(rows).fill(condition.name === "or" ? 0 : 1);
  for (const part of condition.conditions) {
    const holds = matches(part, compare, rows);
    for (let row = 0; row < rows; row++) {
      if (condition.name === "not") {
        found[row] = 1 - holds[row]!;
      } else {
        found[row] = isAnd ? found[row]! & holds[row]! : found[row]! | holds[row]!;
      }
    }
  }
  return found;
}

/** Returns a value of JSON as its text, the names of objects sorted. */
function canonicalForm(value: unknown): string {
  if (isList(value)) {
    return `[${value.map(canonicalForm).join(",")}]`;
  }
  if (isObject(value)) {
    const parts = sortedNames(value).map(
      (name) => `${JSON.stringify(name)}:${canonicalForm(value[name]!)}`,
    );
    return `{${parts.join(",")}}`;
  }
  return JSON.stringify(value);
}

function sortedNames(value: Attributes): string[] {
  return Object.keys(value).sort(compareTexts);
}

/** Returns a value as JSON reads it; throws `TypeError` for what JSON would leave out or change. */
function asJson(value: unknown, name: string, depth: number): unknown {
  if (depth > MAX_NESTED) {
    throw new TypeError(`${name}: expected what JSON can hold, found too many levels`);
  }
  if (typeof value === "number") {
    return Number.isFinite(value) ? value : null;
  }
  if (value === null || typeof value === "string" || typeof value === "boolean") {
    return value;
  }
  if (value instanceof Date) {
    return asJson(value.toJSON(), name, depth);
  }
  if (Array.isArray(value)) {
    return value.map((each) => asJson(each, name, depth + 1));
  }
  // A map or a missing value would be an empty rule, which everything meets.
  if (Object.prototype.toString.call(value) !== "[object Object]") {
    throw new TypeError(
      `${name}: expected what JSON can hold, found a value of type ${typeName(value)}`,
    );
  }
  const entries = Object.entries(value as object);
  return Object.fromEntries(entries.map(([key, each]) => [key, asJson(each, name, depth + 1)]));
}

/** Checks one rule and counts its conditions. */
class Parser {
  private count = 0;

  constructor(private readonly name: string) {}

  /** Returns the condition of an object; `place` says in errors where it stands. */
  rule(where: unknown, depth: number, place: string): Condition {
    if (!isObject(where)) {
      throw new RangeError(
        `${place}: expected a mapping such as {'price': {'lt': 50}}, found ${shown(where)}`,
      );
    }
    if (depth > MAX_DEPTH) {
      throw new RangeError(`${this.name}: expected at most ${MAX_DEPTH} levels, found more`);
    }
    const parts: Condition[] = [];
    for (const key of sortedNames(where)) {
      const at = `${place}: ${cut(key, 80)}`;
      if (CONNECTIVES.has(key)) {
        parts.push(this.connective(key, where[key]!, depth, at));
      } else {
        parts.push(...this.comparisons(key, where[key]!, at));
      }
    }
    return parts.length === 1 ? parts[0]! : { name: "and", conditions: parts };
  }

  private connective(name: string, value: unknown, depth: number, place: string): Connective {
    if (name === "not") {
      return { name, conditions: [this.rule(value, depth + 1, place)] };
    }
    if (!isList(value)) {
      throw new RangeError(`${place}: expected a list of rules, found ${shown(value)}`);
    }
    return { name, conditions: value.map((part) => this.rule(part, depth + 1, place)) };
  }

  private comparisons(attribute: string, value: unknown, place: string): Comparison[] {
    if (attribute === "id") {
      throw new RangeError(
        `${place}: expected an attribute, found the item's id: pass ids as \`among\` or` +
          " `exclude`",
      );
    }
    const operators: Attributes = isObject(value) ? value : { eq: value };
    const names = sortedNames(operators);
    if (names.length === 0) {
      throw new RangeError(`${place}: expected one of ${OPERATORS.join(", ")}, found none`);
    }
    return names.map((operator) => {
      this.count += 1;
      if (this.count > MAX_CONDITIONS) {
        throw new RangeError(
          `${this.name}: expected at most ${MAX_CONDITIONS} conditions, found more;` +
            " write many values of one attribute as one `in`",
        );
      }
      return { attribute, operator, operands: checkedOperands(operator, operators, place) };
    });
  }
}

/** Returns operands; throws `RangeError` for an unknown operator, and for wrong operands. */
function checkedOperands(operator: string, operators: Attributes, place: string): Scalar[] {
  if (!OPERATORS.includes(operator)) {
    throw new RangeError(
      `${place}: expected an operator, one of ${OPERATORS.join(", ")}, found ${shown(operator)}`,
    );
  }
  const operand = operators[operator]!;
  const at = `${place}: ${operator}`;
  if (operator === "exists") {
    if (typeof operand !== "boolean") {
      throw new RangeError(`${at}: expected true or false, found ${shown(operand)}`);
    }
    return [operand];
  }
  if (LISTS.has(operator)) {
    return checkedList(operator, operand, at);
  }
  if (ORDERING.has(operator)) {
    if (typeof operand !== "number" && typeof operand !== "string") {
      throw new RangeError(`${at}: expected a number or a time, found ${shown(operand)}`);
    }
    return [operand];
  }
  if (isList(operand) || isObject(operand)) {
    throw new RangeError(
      `${at}: expected one value, found ${shown(operand)}: use \`any\` or \`all\` for a list`,
    );
  }
  if (operand === null) {
    throw new RangeError(
      `${at}: expected a value, found null: use {'exists': false} for items without one`,
    );
  }
  return [operand as Scalar];
}

function checkedList(operator: string, operand: unknown, at: string): Scalar[] {
  if (!isList(operand) || !operand.every((each) => each !== null && typeof each !== "object")) {
    throw new RangeError(
      `${at}: expected a list of texts, numbers or booleans, found ${shown(operand)}`,
    );
  }
  const least = operator === "all" ? 1 : 0;
  if (operand.length > MAX_VALUES || operand.length < least) {
    throw new RangeError(
      `${at}: expected ${least} to ${MAX_VALUES} values, found ${operand.length}`,
    );
  }
  return operand as Scalar[];
}
