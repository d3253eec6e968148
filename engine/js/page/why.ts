/** The dialog that says why the shelf shows an item. */

import type { Reasons } from "../src/index.js";
import { plainTitle } from "./columns.js";
import { element, part, style } from "./dom.js";
import { percent } from "./shelf.js";

const MAX_EVENTS = 5;

/** Opens the dialog; it closes by Esc, its button, or a click beside it. */
export function showReasons(reasons: Reasons): void {
  const dialog = part<HTMLDialogElement>("why");
  const shut = () => dialog.close();
  const close = element("button", { type: "button", class: "close", click: shut }, "Close");
  const body = element(
    "div",
    { class: "body" },
    element("h2", { id: "why-title", tabindex: -1, autofocus: true }, plainTitle(reasons.title)),
    element("p", { class: "sentence" }, reasons.sentence),
    section("What moved its score", effects(reasons)),
    section("How its place was drawn", slot(reasons)),
    close,
  );
  dialog.replaceChildren(body);
  dialog.onclick = (event) => {
    if (event.target === dialog) {
      dialog.close();
    }
  };
  dialog.showModal();
}

function section(title: string, content: HTMLElement): HTMLElement {
  return element("section", {}, element("h3", {}, title), content);
}

function effects(reasons: Reasons): HTMLElement {
  const events = reasons.events.slice(0, MAX_EVENTS).map((event): [string, number] => {
    const verb = event.kind === "skip" || event.kind === "dislike" ? "not for you" : "liked";
    return [`${plainTitle(event.title)} (${verb})`, event.effect];
  });
  const rows: [string, number][] = [...events, ["Popularity", reasons.popularity.aboveMean]];
  const largest = Math.max(...rows.map(([, effect]) => Math.abs(effect)), 1e-9);
  return element("dl", { class: "effects" }, ...rows.flatMap((row) => effectRow(row, largest)));
}

function effectRow([name, effect]: [string, number], largest: number): HTMLElement[] {
  const bar = element("i", { class: effect < 0 ? "down" : "", "aria-hidden": "true" });
  style(bar, {
    "--up": Math.max(effect, 0) / largest,
    "--down": Math.max(-effect, 0) / largest,
  });
  const sign = effect < 0 ? "−" : "+";
  const value = element("b", {}, `${sign}${Math.abs(effect).toFixed(2)}`);
  return [element("dt", {}, name), element("dd", {}, bar, value)];
}

function slot(reasons: Reasons): HTMLElement {
  const { rank, eligible, pool, epsilon, greedy, propensity, marginal } = reasons;
  const rows: [string, string][] = [["Rank", `${rank + 1} of ${eligible}`]];
  if (reasons.newcomer) {
    rows.push(["Chosen", "as an item that few have seen yet"]);
  } else {
    const how = reasons.explored ? `from the ${pool} best, by chance` : "as the next best";
    rows.push(["Chosen", how]);
  }
  rows.push(["Probability", percent(propensity)]);
  if (marginal !== null) {
    rows.push(["Over all shelves", percent(marginal)]);
  }
  if (greedy !== null && greedy.id !== reasons.item) {
    rows.push(["Without exploring", plainTitle(greedy.title)]);
  }
  rows.push(["Exploration", percent(epsilon)]);
  const terms = rows.flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)]);
  return element("dl", { class: "slot" }, ...terms);
}
