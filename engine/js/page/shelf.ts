/** The shelf: cards with their odds, moved to their places, and the keys that walk over them. */

import type { SlateItem } from "../src/index.js";
import { cover, hueOf } from "./cover.js";
import { plainTitle, type Columns } from "./columns.js";
import { drawing, element, part, style } from "./dom.js";
import type { Card, Shelf } from "./session.js";

/** What a person can do to a card. */
export interface CardActions {
  readonly like: (card: Card) => void;
  readonly reject: (card: Card) => void;
  readonly why: (card: Card) => void;
}

const HEART =
  "M10 16.5S3.5 12.7 3.5 8A3.5 3.5 0 0 1 10 6.3 3.5 3.5 0 0 1 16.5 8c0 4.7-6.5 8.5-6.5 8.5z";
const CROSS = "M5.5 5.5l9 9M14.5 5.5l-9 9";
const QUESTION = "M7.6 7.4a2.5 2.5 0 1 1 3.7 2.3c-.9.5-1.3 1-1.3 2M10 14.6v.1";

const MOVE: KeyframeAnimationOptions = { duration: 420, easing: "cubic-bezier(0.2, 0.7, 0.2, 1)" };
const MAX_LINES = 2;

/** The cards on the page. One of them can be reached by Tab, the others by the arrow keys. */
export class ShelfView {
  private readonly list = part<HTMLOListElement>("cards");
  private cards: readonly Card[] = [];
  private current = 0;

  constructor(
    private readonly columns: Columns,
    private readonly actions: CardActions,
  ) {
    this.list.addEventListener("keydown", (event) => this.onKey(event));
    this.list.addEventListener("focusin", (event) => this.onFocus(event));
  }

  /** Shows a shelf; what stays moves to its new place, and focus keeps the place it has. */
  show(shelf: Shelf): void {
    const hadFocus = this.list.contains(document.activeElement);
    const before = this.places();
    this.cards = shelf.cards;
    this.current = Math.min(this.current, Math.max(shelf.cards.length - 1, 0));
    this.list.replaceChildren(
      ...shelf.cards.map((card, place) =>
        element("li", { "data-id": card.id }, this.card(card, place)),
      ),
    );
    this.move(before);
    this.showRibbon();
    if (hadFocus) {
      this.focus(this.current);
    }
  }

  /** Returns the hue that stands for the labels of an item. */
  hue(card: { readonly attributes: Card["attributes"] }): number {
    const { category } = this.columns;
    const label = category?.labelsOf(card.attributes[category.name])[0];
    return hueOf(category && label !== undefined ? category.labels.indexOf(label) : 0);
  }

  private card(card: Card, place: number): HTMLElement {
    const { slot } = card;
    const title = plainTitle(card.title);
    const spoken = slot === null ? [] : [oddsText(slot)];
    return element(
      "article",
      {
        class: slot?.explored ? "card explored" : "card",
        tabindex: place === this.current ? 0 : -1,
        "aria-label": [title, ...this.lines(card), ...spoken].join(". "),
        "aria-keyshortcuts": slot === null ? "Enter" : "Enter X W",
      },
      cover({ id: card.id, title, lines: this.lines(card), hue: this.hue(card) }),
      ...(slot === null ? [] : [odds(slot)]),
      this.buttons(card, title, place === this.current),
    );
  }

  private buttons(card: Card, title: string, isCurrent: boolean): HTMLElement {
    const icon = (path: string) =>
      drawing("svg", { viewBox: "0 0 20 20", "aria-hidden": "true" }, drawing("path", { d: path }));
    const button = (name: string, label: string, path: string, act: (card: Card) => void) =>
      element(
        "button",
        {
          type: "button",
          class: name,
          title: label,
          tabindex: isCurrent ? 0 : -1,
          "aria-label": `${label}: ${title}`,
          click: () => act(card),
        },
        icon(path),
      );
    const made = [button("like", "Like", HEART, this.actions.like)];
    if (card.slot !== null) {
      made.push(
        button("reject", "Not for me", CROSS, this.actions.reject),
        button("ask", "Why", QUESTION, this.actions.why),
      );
    }
    return element("div", { class: "actions" }, ...made);
  }

  /** Returns what stands at the foot of a cover: texts that are no label, then the number. */
  private lines(card: Card): readonly string[] {
    const { category, range } = this.columns;
    const entry = { id: card.id, title: card.title, attributes: card.attributes };
    const number = range?.valueOf(entry) ?? null;
    const texts = Object.entries(card.attributes)
      .filter(([name, value]) => name !== category?.name && typeof value === "string")
      .map(([, value]) => String(value));
    const labels = category?.labelsOf(card.attributes[category.name]) ?? [];
    const first = texts.length > 0 ? texts : [labels.slice(0, 3).join(", ")];
    const last = number === null ? [] : [numberText(number, range!.isYear)];
    return [...first.slice(0, MAX_LINES - last.length), ...last].filter(Boolean);
  }

  /** Shows of how many of each label the shelf is made. */
  private showRibbon(): void {
    const ribbon = part("ribbon");
    const { category } = this.columns;
    const counts = new Map<string, number>();
    for (const card of this.cards) {
      const label = category?.labelsOf(card.attributes[category.name])[0];
      if (label !== undefined) {
        counts.set(label, (counts.get(label) ?? 0) + 1);
      }
    }
    const labels = [...counts.keys()].sort((a, b) => counts.get(b)! - counts.get(a)!);
    ribbon.replaceChildren(
      ...labels.map((name) => {
        const count = counts.get(name)!;
        const share = element("li", {}, element("span", {}, `${name} ${count}`));
        style(share, { "--count": count, "--hue": hueOf(category!.labels.indexOf(name)) });
        return share;
      }),
    );
  }

  private places(): ReadonlyMap<string, DOMRect> {
    const items = [...this.list.children] as HTMLElement[];
    return new Map(items.map((item) => [item.dataset["id"]!, item.getBoundingClientRect()]));
  }

  private move(before: ReadonlyMap<string, DOMRect>): void {
    if (before.size === 0 || matchMedia("(prefers-reduced-motion: reduce)").matches) {
      return;
    }
    for (const item of [...this.list.children] as HTMLElement[]) {
      const from = before.get(item.dataset["id"]!);
      const to = item.getBoundingClientRect();
      if (from === undefined) {
        item.animate([{ opacity: 0, scale: "0.94" }, { opacity: 1, scale: "1" }], MOVE);
      } else if (from.x !== to.x || from.y !== to.y) {
        const start = `${from.x - to.x}px ${from.y - to.y}px`;
        item.animate([{ translate: start }, { translate: "0" }], MOVE);
      }
    }
  }

  private focus(place: number): void {
    this.makeCurrent(place);
    this.list.querySelectorAll<HTMLElement>(".card")[place]?.focus();
  }

  private makeCurrent(place: number): void {
    this.list.querySelectorAll(".card").forEach((card, i) => {
      for (const target of [card, ...card.querySelectorAll("button")]) {
        target.setAttribute("tabindex", i === place ? "0" : "-1");
      }
    });
    this.current = place;
  }

  private onFocus(event: FocusEvent): void {
    const item = (event.target as Element).closest("li");
    const place = item === null ? -1 : [...this.list.children].indexOf(item);
    if (place >= 0 && place !== this.current) {
      this.makeCurrent(place);
    }
  }

  private onKey(event: KeyboardEvent): void {
    if (event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    const columns = getComputedStyle(this.list).gridTemplateColumns.split(" ").length;
    const steps: Record<string, number> = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -columns,
      ArrowDown: columns,
    };
    const step = steps[event.key];
    const card = this.cards[this.current];
    if (step !== undefined) {
      const next = this.current + step;
      if (next >= 0 && next < this.cards.length) {
        this.focus(next);
      }
      event.preventDefault();
    } else if (card !== undefined && (event.target as Element).closest("button") === null) {
      const key = event.key.toLowerCase();
      const act = key === "enter" ? this.actions.like : this.slotAction(card, key);
      act?.(card);
    }
  }

  private slotAction(card: Card, key: string): ((card: Card) => void) | undefined {
    const actions: Record<string, (card: Card) => void> = {
      x: this.actions.reject,
      w: this.actions.why,
    };
    return card.slot === null ? undefined : actions[key];
  }
}

/** Returns a probability as a person reads it: 81 %, 0.7 %. */
export function percent(probability: number): string {
  const value = probability * 100;
  return `${value >= 9.95 ? Math.round(value) : Number(value.toPrecision(value < 1 ? 1 : 2))} %`;
}

/** Returns a number of a column as a person reads it. */
export function numberText(value: number, isYear: boolean): string {
  if (isYear) {
    return value < 0 ? `${-value} BC` : String(value);
  }
  return value.toLocaleString();
}

function oddsLabel(slot: SlateItem): string {
  if (slot.newcomer) {
    return "New here";
  }
  return slot.explored ? `Explored, no. ${slot.rank + 1}` : `No. ${slot.rank + 1}`;
}

function oddsText(slot: SlateItem): string {
  return `${oddsLabel(slot)}, probability ${percent(slot.propensity)}`;
}

function odds(slot: SlateItem): HTMLElement {
  const bar = element("i", { "aria-hidden": "true" });
  style(bar, { "--p": slot.propensity });
  return element(
    "p",
    { class: "odds" },
    element("span", {}, oddsLabel(slot)),
    element("span", {}, percent(slot.propensity)),
    bar,
  );
}
