/**
 * Answers calls of the Python tests, one JSON line each on standard input, so that they can compare
 * both engines on generated cases without starting a process for each.
 */

import { createInterface } from "node:readline";

import * as codec from "../../src/events/codec.js";
import { nextChecksum } from "../../src/events/stateChecksum.js";
import { twoDigits } from "../../src/reasons/sentence.js";
import { withoutEachWord } from "../../src/reasons/texts.js";
import { type ChangeBatch, changesInForce } from "../../src/rules/attributeChanges.js";
import { closeMatches } from "../../src/rules/closeMatches.js";
import { secondsOf } from "../../src/rules/isoTime.js";
import { blake2b } from "../../src/runtime/blake2b.js";
import { uuid7 } from "../../src/runtime/clock.js";
import { encodeFloat, encodeText } from "../../src/runtime/json.js";
import { hex, unhex } from "../../src/runtime/text.js";
import { kernelCalls } from "./kernelCalls.js";
import { wordsOf } from "../../src/search/words.js";
import { casefold, isPrintable } from "../../src/unicode.js";

const CALLS: Record<string, (...parameters: any[]) => unknown> = {
  float: (bits: string) => encodeFloat(new DataView(unhex(bits).buffer).getFloat64(0)),
  text: encodeText,
  line: (line: string) => codec.encode(codec.decode(line)),
  blake2b: (content: string, size: number, key: string) =>
    hex(blake2b(unhex(content), size, unhex(key))),
  nextChecksum,
  uuid7: (nowMs: number, random: string) => uuid7(nowMs, () => unhex(random)),
  closeMatches,
  changesInForce: (batches: ChangeBatch[], createdMs: number, ids: string[], addedMs: object) => {
    const find = (item: string) => (ids.includes(item) ? ids.indexOf(item) : null);
    const bundle = { createdMs, find, record: () => ({ price: 1, stock: null }) };
    const inForce = changesInForce(batches, bundle, new Map(Object.entries(addedMs)));
    return Object.fromEntries(inForce);
  },
  secondsOf: (text: string) => {
    const seconds = secondsOf(text);
    return Number.isNaN(seconds) ? null : seconds;
  },
  wordsOf,
  withoutEachWord: (text: string) => [...withoutEachWord(text)],
  twoDigits,
  casefold,
  isPrintable,
  slotBytes: codec.slotBytes,
  ...kernelCalls,
  fittingPool: (items: string[], boosts: number[]) => codec.fittingPool(items, boosts) ?? null,
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...parameters] = JSON.parse(line);
  let answer: unknown;
  try {
    answer = { value: CALLS[name]!(...parameters) };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
