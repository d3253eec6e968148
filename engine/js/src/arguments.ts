/**
 * Checks of what an app passes to the engine's methods: types and ranges, each error naming its
 * argument.
 *
 * What users typed is never judged: any text is fine.
 */

import { MAX_POOL } from "./bundle/manifest.js";
import { isIterable, isPromise, shown, typeName } from "./errors.js";
import { MAX_NAME } from "./events/wire.js";
import { type Context, NO_CONTEXT } from "./ranking/contexts.js";
import { isWellFormed } from "./runtime/text.js";
import { type Attributes, FoundItems, Slate, type SlateItem } from "./slate.js";
import { countCharacters, isPrintable } from "./unicode.js";

const MAX_SLOTS = 1000;
const MAX_TIMEOUT_S = 3600;

/** An item of a slate or of a search, or its id. */
export type ItemOrId = string | { readonly id: string };

/** Throws `TypeError` for an argument of a call that has no such argument. */
export function checkNames(call: string, given: object, known: readonly string[]): void {
  if (typeName(given) !== "object") {
    throw new TypeError(`${call}: expected an object of arguments, found ${typeName(given)}`);
  }
  for (const name of Object.keys(given)) {
    if (!known.includes(name)) {
      throw new TypeError(
        `${call}: ${name}: expected one of ${known.join(", ")}, found no such argument`,
      );
    }
  }
}

/** Throws `TypeError` for what is no path of a folder. */
export function checkFolder(folder: unknown): void {
  if (typeof folder !== "string") {
    throw new TypeError(
      `folder: expected a path such as "state/", found ${typeName(folder)};` +
        " fileURLToPath makes one of a file URL",
    );
  }
}

/** The context of a request: features by name, and perhaps a text. */
export interface ContextFeatures {
  readonly text?: string | null;

  readonly [feature: string]: ContextValue | readonly ContextValue[] | null | undefined;
}

type ContextValue = string | number | boolean;

/** Returns a text, or features and perhaps `text`; throws `TypeError` for anything else. */
export function checkContext(context: unknown): Context {
  if (context == null) {
    return NO_CONTEXT;
  }
  if (typeof context === "string") {
    return { text: context, values: {} };
  }
  if (typeName(context) !== "object") {
    const found = typeName(context);
    throw new TypeError(`context: expected a text, features by name, or null, found ${found}`);
  }
  const { text = null, ...values } = context as Attributes;
  if (text !== null && typeof text !== "string") {
    throw new TypeError(`context: text: expected a string or null, found ${typeName(text)}`);
  }
  return { text, values };
}

/** Returns k; throws `TypeError` for no whole number, `RangeError` unless 1 <= k <= 1000. */
export function checkK(k: unknown): number {
  if (!Number.isInteger(k)) {
    throw new TypeError(`k: expected a whole number, found ${typeName(k)} ${shown(k)}`);
  }
  const count = k as number;
  if (count < 1 || count > MAX_SLOTS) {
    throw new RangeError(`k: expected 1 to ${MAX_SLOTS}, found ${count}`);
  }
  return count;
}

/** Throws `TypeError` for what is no slate. */
export function checkSlate(slate: unknown): asserts slate is Slate {
  if (slate instanceof FoundItems) {
    throw new TypeError(
      "slate: expected what `recommend` returned, found what `search` or `similar` did:" +
        " they record no decision that a reward could belong to",
    );
  }
  if (!(slate instanceof Slate)) {
    throw new TypeError(`slate: expected what \`recommend\` returned, found ${typeName(slate)}`);
  }
}

/** Throws `TypeError` unless all are true, false or absent. */
export function checkFlags(flags: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(flags)) {
    if (value !== undefined && value !== null && typeof value !== "boolean") {
      throw new TypeError(`${name}: expected true or false, found ${typeName(value)}`);
    }
  }
}

/**
 * Throws `TypeError` unless all are strings, `RangeError` where `item` or `kind` fit no event.
 *
 * An event holds 1 to 512 characters of valid Unicode there; a user's name never leaves the device.
 */
export function checkTexts(texts: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(texts)) {
    if (typeof value !== "string") {
      throw new TypeError(`${name}: expected a string, found ${typeName(value)}`);
    }
    if (name === "item" || name === "kind") {
      checkName(name, value);
    }
  }
}

function checkName(name: string, value: string): void {
  const length = countCharacters(value);
  if (length < 1 || length > MAX_NAME) {
    throw new RangeError(`${name}: expected 1 to ${MAX_NAME} characters, found ${length}`);
  }
  if (!isWellFormed(value)) {
    throw new RangeError(
      `${name}: expected whole characters, found half of one (a lone surrogate)`,
    );
  }
}

/** Returns a reward; throws `TypeError` for no number, `RangeError` outside [-1, 1]. */
export function checkValue(value: unknown): number {
  return checkNumber("value", value, -1, 1);
}

/** Returns the diversity; throws `TypeError` for no number, `RangeError` outside [0, 1]. */
export function checkDiversity(value: unknown): number {
  return checkNumber("diversity", value, 0, 1);
}

/** Returns how many seconds to wait; throws `TypeError`, or `RangeError` unless 0 to 3600. */
export function checkTimeout(timeoutS: unknown): number {
  return checkNumber("timeoutS", timeoutS, 0, MAX_TIMEOUT_S);
}

/** Returns a number; throws `TypeError` for none, `RangeError` for one out of its range. */
export function checkNumber(name: string, value: unknown, atLeast: number, atMost: number): number {
  if (typeof value !== "number") {
    throw new TypeError(`${name}: expected a number, found ${typeName(value)}`);
  }
  if (!(value >= atLeast && value <= atMost)) {
    throw new RangeError(
      `${name}: expected a number in [${atLeast}, ${atMost}], found ${shown(value)}`,
    );
  }
  return value;
}

/**
 * Returns several as a list; throws `TypeError` for one text, one record or no collection.
 *
 * A text is a collection of its letters, so that "12" would mean the items 1 and 2.
 */
export function checkSeveral(name: string, several: unknown): unknown[] {
  if (!isIterable(several)) {
    throw new TypeError(
      `${name}: expected several, such as an array, found one ${typeName(several)};` +
        " put it into an array",
    );
  }
  return Array.from(several);
}

/**
 * Returns the ids of items, some given by id; throws `TypeError`, naming the argument, for what is
 * neither.
 */
export function idsOf(name: string, items: unknown): string[] {
  return checkSeveral(name, items).map((item) => idOf(name, item));
}

/** Returns a wrong argument's type and value, once where both are the same word. */
function kindOf(value: unknown): string {
  const kind = typeName(value);
  return value == null || isPromise(value) ? kind : `${kind} ${shown(value)}`;
}

/** Returns the id of an item, or what stands for it where that is none. */
function idIn(item: unknown): unknown {
  return typeof item === "string" ? item : (item as { id?: unknown } | null | undefined)?.id;
}

function idOf(name: string, item: unknown): string {
  const id = idIn(item);
  if (typeof id !== "string") {
    throw new TypeError(
      `${name}: expected ids or items of a slate, found ${kindOf(item)}`,
    );
  }
  return id;
}

/**
 * Returns the ids on a slate and on those that it came after, which a next page leaves out.
 *
 * Throws `TypeError` for what is no slate, `RangeError` for the slate of another user.
 */
export function pagesBefore(user: string, after: unknown): string[] {
  if (!(after instanceof Slate)) {
    throw new TypeError(`after: expected what \`recommend\` returned, found ${typeName(after)}`);
  }
  if (after.user !== user) {
    throw new RangeError(
      `after: expected a slate of the user ${shown(user)}, found one of ${shown(after.user)}`,
    );
  }
  return [...after.earlier, ...after.items.map((item) => item.id)];
}

/** Returns items of a slate, some given by id; throws `RangeError` for one that is not on it. */
export function itemsOnSlate(slate: Slate, items: unknown): SlateItem[] {
  const byId = new Map(slate.items.map((item) => [item.id, item]));
  return checkSeveral("items", items).map((item) => {
    const id = idIn(item);
    if (typeof id !== "string") {
      throw new TypeError(
        "item: expected an item of the slate, such as slate.items[0], or its id," +
          ` found ${kindOf(item)}`,
      );
    }
    const found = byId.get(id);
    if (found === undefined) {
      throw new RangeError(
        `item: expected one of the slate's ${byId.size} items, found ${shown(id)}`,
      );
    }
    return found;
  });
}

/**
 * Returns caps by attribute; throws `TypeError` or `RangeError` unless they are whole numbers of at
 * least 1.
 */
export function checkCaps(atMost: unknown): ReadonlyMap<string, number> {
  if (typeName(atMost) !== "object") {
    throw new TypeError(
      `atMost: expected a mapping from attributes to numbers, found ${typeName(atMost)}`,
    );
  }
  const caps = new Map<string, number>();
  for (const [attribute, cap] of Object.entries(atMost as object)) {
    if (!Number.isInteger(cap)) {
      throw new TypeError(
        `atMost: expected attribute names with whole numbers, found ${shown(attribute)}:` +
          ` ${shown(cap)}`,
      );
    }
    const length = countCharacters(attribute);
    if (length < 1 || length > MAX_NAME || !isPrintable(attribute)) {
      throw new RangeError(
        `atMost: expected an attribute's name of 1 to ${MAX_NAME} printable characters,` +
          ` found ${shown(attribute)}`,
      );
    }
    if (cap < 1 || cap > MAX_POOL) {
      throw new RangeError(
        `atMost: ${attribute}: expected 1 to ${MAX_POOL}, found ${shown(cap)};` +
          " to show none of these items, exclude them",
      );
    }
    caps.set(attribute, cap);
  }
  return caps;
}

/**
 * Returns pinned ids by ascending slot; throws `TypeError` or `RangeError` unless each is an id or
 * an item of a slate, at one slot below k.
 */
export function checkPins(pin: unknown, k: number): ReadonlyMap<number, string> {
  if (typeName(pin) !== "object") {
    throw new TypeError(`pin: expected a mapping from slots to items, found ${typeName(pin)}`);
  }
  const slotOf = new Map<string, number>();
  for (const [key, item] of Object.entries(pin as object)) {
    const slot = Number(key); // an object's keys are texts
    if (key === "" || !Number.isInteger(slot)) {
      throw new TypeError(`pin: expected whole numbers as slots, found ${shown(key)}`);
    }
    if (slot < 0 || slot >= k) {
      throw new RangeError(`pin: expected slots 0 to ${k - 1}, as k is ${k}, found ${slot}`);
    }
    const id = idIn(item);
    if (typeof id !== "string") {
      throw new TypeError(
        `pin: slot ${slot}: expected an id or an item of a slate, found ${typeName(item)}`,
      );
    }
    const other = slotOf.get(id);
    if (other !== undefined) {
      throw new RangeError(
        `pin: expected an item once, found ${shown(id)} in slots ${other} and ${slot}`,
      );
    }
    slotOf.set(id, slot);
  }
  return new Map(Array.from(slotOf, ([id, slot]) => [slot, id] as const).sort(([a], [b]) => a - b));
}
