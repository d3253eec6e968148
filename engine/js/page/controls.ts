/** What a person sets: exploration, the search, and the rules found in the catalog's columns. */

import type { Choices } from "./choices.js";
import type { Category, Columns, Range } from "./columns.js";
import { hueOf } from "./cover.js";
import { element, part, style } from "./dom.js";
import { numberText, percent } from "./shelf.js";

const TYPING_PAUSE_MS = 120;

/** What the bundle says of its exploration. */
export interface ExplorationSetting {
  readonly epsilon: number;

  /** How many of the best items exploration can draw from. */
  readonly pool: number;
}

/** Builds the rules; `changed` is called after each change of `choices`. */
export function showRules(columns: Columns, choices: Choices, changed: () => void): void {
  const rules = part("rules");
  if (columns.category !== null) {
    rules.append(chips(columns.category, choices, changed));
  }
  if (columns.range !== null) {
    rules.append(span(columns.range, choices, changed));
  }
  rules.hidden = rules.childElementCount === 0;
}

/** Connects the slider of exploration; `changed` gets its value when it is let go. */
export function connectExploration(
  bundle: ExplorationSetting,
  places: number,
  choices: Choices,
  changed: (epsilon: number) => void,
): void {
  const slider = part<HTMLInputElement>("epsilon");
  slider.value = String(choices.epsilon ?? bundle.epsilon);
  const show = (): void => {
    const epsilon = Number(slider.value);
    const text = explorationText(epsilon, bundle.pool, places);
    part("epsilon-value").textContent = `ε ${epsilon.toFixed(2)}`;
    part("epsilon-text").textContent = text;
    slider.setAttribute("aria-valuetext", `${percent(epsilon)}. ${text}`);
    style(slider, { "--fill": percent(epsilon).replace(" ", "") });
  };
  slider.addEventListener("input", show);
  slider.addEventListener("change", () => changed(Number(slider.value)));
  show();
}

/** Connects the search box; `changed` is called when typing pauses. */
export function connectSearch(items: number, choices: Choices, changed: () => void): void {
  const input = part<HTMLInputElement>("query");
  input.placeholder = `Search ${items.toLocaleString()} titles`;
  let timer = 0;
  const search = (): void => {
    clearTimeout(timer);
    const query = input.value.trim();
    if (query !== choices.query) {
      choices.query = query;
      changed();
    }
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = window.setTimeout(search, TYPING_PAUSE_MS);
  });
  input.form?.addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target instanceof HTMLInputElement && event.target.type === "search";
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      input.focus();
    } else if (event.key === "Escape" && isTyping && input.value !== "") {
      input.value = "";
      search();
    }
  });
}

function explorationText(epsilon: number, pool: number, places: number): string {
  if (epsilon === 0) {
    return "Every place shows the next best title.";
  }
  const from = `from the ${pool} best by chance`;
  if (epsilon === 1) {
    return `Every place is drawn ${from}.`;
  }
  const drawn = Math.round(epsilon * places);
  const share = drawn === 0 ? `Fewer than one of ${places} places is` : countText(drawn, places);
  return `${share} drawn ${from}; the others show the next best title.`;
}

function countText(drawn: number, places: number): string {
  return `About ${drawn} of ${places} places ${drawn === 1 ? "is" : "are"}`;
}

function chips(category: Category, choices: Choices, changed: () => void): HTMLElement {
  const toggle = (label: string, button: HTMLElement): void => {
    const chosen = new Set(choices.labels);
    if (!chosen.delete(label)) {
      chosen.add(label);
    }
    choices.labels = [...chosen];
    button.setAttribute("aria-pressed", String(chosen.has(label)));
    changed();
  };
  const made = category.labels.map((label, place) => {
    const button = element(
      "button",
      { type: "button", class: "chip", "aria-pressed": String(choices.labels.includes(label)) },
      label,
    );
    button.addEventListener("click", () => toggle(label, button));
    style(button, { "--hue": hueOf(place) });
    return button;
  });
  return element("div", { class: "chips", role: "group", "aria-label": category.name }, ...made);
}

function span(range: Range, choices: Choices, changed: () => void): HTMLElement {
  const [from, to] = choices.span ?? [range.low, range.high];
  const slider = (label: string, value: number): HTMLInputElement =>
    element("input", {
      type: "range",
      min: range.low,
      max: range.high,
      step: range.step,
      value,
      "aria-label": `${label} ${range.name}`,
    });
  const low = slider("Earliest", from);
  const high = slider("Latest", to);
  const output = element("output");
  const track = element("div", { class: "track" }, low, high);
  const show = (): void => {
    const [a, b] = [Number(low.value), Number(high.value)];
    const place = (value: number) => (value - range.low) / (range.high - range.low);
    output.textContent = spanText(range, a, b);
    style(track, { "--from": place(a), "--to": place(b) });
  };
  const keepOrder = (moved: HTMLInputElement, other: HTMLInputElement, sign: number): void => {
    if (sign * (Number(moved.value) - Number(other.value)) > 0) {
      moved.value = other.value;
    }
    show();
  };
  const finish = (): void => {
    const [a, b] = [Number(low.value), Number(high.value)];
    choices.span = a === range.low && b === range.high ? null : [a, b];
    changed();
  };
  low.addEventListener("input", () => keepOrder(low, high, 1));
  high.addEventListener("input", () => keepOrder(high, low, -1));
  low.addEventListener("change", finish);
  high.addEventListener("change", finish);
  const group = element(
    "div",
    { class: "span", role: "group", "aria-label": range.name },
    track,
    output,
  );
  show();
  return group;
}

function spanText(range: Range, low: number, high: number): string {
  const name = (value: number) => (range.isYear ? `${value}s` : numberText(value, false));
  if (low === range.low && high === range.high) {
    return `Any ${range.name}`;
  }
  if (low === high) {
    return name(low);
  }
  if (low === range.low) {
    return `Until ${name(high)}`;
  }
  return high === range.high ? `Since ${name(low)}` : `${name(low)} to ${name(high)}`;
}
