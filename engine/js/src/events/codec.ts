/** The bytes of events: one JSON line each, equal to those that the Python engine writes. */

import { EventError } from "../errors.js";
import { encodeFloat, encodeJson, encodeText } from "../runtime/json.js";
import { checked } from "../runtime/structs.js";
import { utf8Length } from "../runtime/text.js";
import {
  EVENTS,
  type Event,
  MAX_LINE,
  MAX_POOL_ITEMS,
  ROOM_FOR_MARK,
  ROOM_FOR_POOL,
  ROOM_FOR_SLOT,
} from "./wire.js";

/**
 * Returns one JSON line without its newline; throws `EventError` where a field has a wrong type.
 */
export function encode(event: Event): string {
  return encodeJson(EVENTS[event.type], event);
}

/** Reads one JSON line; throws `EventError` with the path of the first fault. */
export function decode(line: string): Event {
  const length = utf8Length(line);
  if (length > MAX_LINE) {
    throw new EventError(`expected an event of at most ${MAX_LINE} bytes, found ${length}`);
  }
  let value: { type?: unknown };
  try {
    value = JSON.parse(line) ?? {};
  } catch (error) {
    throw new EventError(`not a valid event: ${String(error)}`);
  }
  const { type } = value;
  if (typeof type !== "string" || !Object.hasOwn(EVENTS, type)) {
    throw new EventError(`not a valid event: expected a type, found ${String(type)}`);
  }
  return checked(EVENTS[type as Event["type"]], value) as Event;
}

/**
 * Returns an upper bound of the bytes that a slot with this item takes in an encoded decision;
 * `isMarked` as a newcomer or pinned.
 */
export function slotBytes(item: string, isMarked = false): number {
  return ROOM_FOR_SLOT + (isMarked ? ROOM_FOR_MARK : 0) + utf8Length(encodeText(item));
}

/**
 * Returns the ids of the items of a pool, or undefined where they and their boosts have no room in
 * a decision.
 */
export function fittingPool(
  items: readonly string[],
  boosts: readonly number[] = [],
): readonly string[] | undefined {
  if (items.length === 0 || items.length > MAX_POOL_ITEMS) {
    return undefined;
  }
  const ids = `[${items.map(encodeText).join(",")}]`;
  const added = `[${boosts.map(encodeFloat).join(",")}]`;
  return utf8Length(ids) + added.length <= ROOM_FOR_POOL ? items : undefined;
}
