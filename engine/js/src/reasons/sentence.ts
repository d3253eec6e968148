/** Says reasons in one sentence of English, the strongest cause first. */

import type { EventReason, Reasons } from "../reasons.js";
import { countCharacters, cut, withSingleBlanks } from "../unicode.js";

/** Past events that a sentence names. */
const MAX_EVENTS = 2;

/** What one of them shares with the item. */
const MAX_TRAITS = 2;

/** Words of a context or text that it names. */
const MAX_WORDS = 2;

/**
 * A cause is named if it has this part of the strongest one's effect, an event if it has this part
 * of the strongest event's.
 */
const WORTH_NAMING = 0.25;

/** Rules of which a sentence tells that they kept better items out. */
const TELLING_RULES = ["where", "among", "atMost"];

/** Characters of a title. */
const MAX_TITLE = 60;

/** Returns the sentence for reasons whose own one is still empty. */
export function sentenceOf(reasons: Reasons): string {
  const causes = listed(causesOf(reasons));
  const title = quoted(reasons.title);
  const chance = `with a probability of ${twoDigits(100 * reasons.propensity)} %`;
  let start: string;
  if (reasons.pinned) {
    return `${title} is pinned to this slot by the app.`;
  } else if (reasons.newcomer) {
    start = `${title} is shown as a newcomer, ${chance}`;
  } else if (reasons.explored) {
    start = `${title} was drawn by exploration, ${chance}`;
  } else if (causes !== "") {
    return `${title} is shown because of ${causes}${leftOut(reasons)}.`;
  } else {
    const place = `number ${reasons.rank + 1} of ${reasons.eligible} by score`;
    return `${title} is shown because it is ${place}${leftOut(reasons)}.`;
  }
  const { greedy } = reasons;
  if (greedy !== null && greedy.id !== reasons.item) {
    start += `, where ${quoted(greedy.title)} would stand otherwise`;
  }
  return `${start}${causes === "" ? "" : `; in its favour: ${causes}`}${leftOut(reasons)}.`;
}

/** Returns what raised the score, the strongest first. */
function causesOf(reasons: Reasons): string[] {
  const effects: [number, string[]][] = [
    [reasons.historyEffect, behaviour(reasons.events)],
    [reasons.popularity.aboveMean, [popularity(reasons)]],
    [reasons.contextEffect ?? 0.0, [context(reasons)]],
    [reasons.boost, ["a boost by the app"]],
    ownText(reasons),
  ];
  effects.sort(([a], [b]) => b - a);
  const least = WORTH_NAMING * effects[0]![0];
  return effects.filter(([effect]) => effect > 0 && effect >= least).flatMap(([, texts]) => texts);
}

/** Names the events that raised the score most, one for each item. */
function behaviour(events: readonly EventReason[]): string[] {
  const [strongest] = events;
  if (strongest === undefined || strongest.effect <= 0.0) {
    return ["past behaviour as a whole"];
  }
  const least = WORTH_NAMING * strongest.effect;
  const byItem = new Map<string, EventReason>();
  for (const event of events) {
    if (event.effect >= least && !byItem.has(event.item)) {
      byItem.set(event.item, event);
    }
  }
  return [...byItem.values()].slice(0, MAX_EVENTS).map(nameOf);
}

function nameOf(event: EventReason): string {
  const values = new Set(event.shared.map((trait) => trait.value));
  const shared = [...values].slice(0, MAX_TRAITS).join(", ");
  const details = shared === "" ? event.kind : `${event.kind}; in common: ${shared}`;
  return `${quoted(event.title)} (${details})`;
}

function popularity(reasons: Reasons): string {
  const percentile = Math.trunc(100 * reasons.popularity.percentile);
  return `its popularity (above ${percentile} % of the catalog)`;
}

function context(reasons: Reasons): string {
  const named = raisingWords(reasons, "context").slice(0, MAX_WORDS);
  return named.length > 0 ? `the context (${named.join(", ")})` : "the context";
}

/** Names the words of its own text for which a user's score of an added item is high. */
function ownText(reasons: Reasons): [number, string[]] {
  const [strongest] = reasons.words.filter(({ source }) => source === "text");
  const named = raisingWords(reasons, "text").slice(0, MAX_WORDS);
  return named.length > 0 ? [strongest!.effect, [`its text (${named.join(", ")})`]] : [0.0, []];
}

function raisingWords(reasons: Reasons, wanted: string): string[] {
  return reasons.words
    .filter(({ source, effect }) => source === wanted && effect > 0.0)
    .map(({ word }) => word);
}

function leftOut(reasons: Reasons): string {
  const { passedOver, rules } = reasons;
  // What an app excludes is mostly what the user has already seen, as are earlier pages.
  if (passedOver === 0 || !TELLING_RULES.some((rule) => rule in rules)) {
    return "";
  }
  const items = passedOver === 1 ? "1 item" : `${passedOver} items`;
  return `; rules kept ${items} of a better score out`;
}

function quoted(title: string): string {
  const line = withSingleBlanks(title);
  return countCharacters(line) <= MAX_TITLE ? `“${line}”` : `“${cut(line, MAX_TITLE - 1)}…”`;
}

/** Joins parts by commas, the last one by `and`. */
function listed(parts: readonly string[]): string {
  if (parts.length < 2) {
    return parts.join("");
  }
  return `${parts.slice(0, -1).join(", ")} and ${parts[parts.length - 1]}`;
}

/** Returns a positive number by two digits, halves rounded to even ones: `4.2`, `12`, `1e+02`. */
export function twoDigits(value: number): string {
  const [mantissa, exponent] = roundedToEven(value).split("e") as [string, string];
  const power = Number(exponent);
  const digits = mantissa.replace(/\.0$/, "");
  if (power < -4 || power >= 2) {
    const places = String(Math.abs(power)).padStart(2, "0");
    return `${digits}e${power < 0 ? "-" : "+"}${places}`;
  }
  const fixed = Number(`${mantissa}e${exponent}`).toFixed(Math.max(0, 1 - power));
  return fixed.includes(".") ? fixed.replace(/\.?0+$/, "") : fixed;
}

/** Returns two digits with an exponent; JavaScript itself rounds halves up. */
function roundedToEven(value: number): string {
  const rounded = value.toExponential(1);
  const [exact] = value.toExponential(60).split("e") as [string];
  const isHalf = /^.\..50*$/.test(exact);
  // The digit below the half stands in the exact number.
  const isOdd = Number(exact[2]) % 2 === 1;
  return isHalf && !isOdd ? `${exact.slice(0, 3)}e${rounded.split("e")[1]}` : rounded;
}
