/** The page: opens the engine on the bundle beside it, and connects what a person sees to it. */

import { findColumns, plainTitle, type CatalogEntry, type Columns } from "./columns.js";
import { connectExploration, connectSearch, showRules } from "./controls.js";
import { element, part, style } from "./dom.js";
import { showConnection, showFigures } from "./figures.js";
import { PageBundle, type PageConfig } from "./opening.js";
import { Session, SHELF_ITEMS, type Card, type Shelf } from "./session.js";
import { ShelfView } from "./shelf.js";
import { showReasons } from "./why.js";

const SHOWN_VERDICTS = 8;
const NOTICE_MS = 6000;
const FIGURES_MS = 1000;

/** Connects session and page. */
class Page {
  private readonly view: ShelfView;
  private readonly titles: ReadonlyMap<string, CatalogEntry>;
  private took = 0;
  private first = 0;

  constructor(
    private readonly session: Session,
    columns: Columns,
    catalog: readonly CatalogEntry[],
  ) {
    this.titles = new Map(catalog.map((item) => [item.id, item]));
    this.view = new ShelfView(columns, {
      like: (card) => void this.attempt(() => this.judge(card, true)),
      reject: (card) => void this.attempt(() => this.judge(card, false)),
      why: (card) => void this.attempt(() => this.why(card)),
    });
    showRules(columns, session.choices, () => this.changeRules());
    connectSearch(catalog.length, session.choices, () => this.changeRules());
    part("forget").addEventListener("click", () => void this.attempt(() => this.forget()));
  }

  /** Shows what belongs on the shelf now. */
  async refresh(): Promise<Shelf> {
    const shelf = await this.session.refresh();
    this.took = shelf.took;
    this.view.show(shelf);
    this.showHeading(shelf);
    this.showTaste();
    if (this.first === 0) {
      this.first = performance.now();
      performance.mark("first-shelf");
    }
    this.showFigures();
    return shelf;
  }

  /** Shows latency, memory, rewards and connection; called every second, too. */
  showFigures(): void {
    showFigures(this.session.engine, { took: this.took, first: this.first });
    showConnection(this.session.engine);
  }

  /** Runs what a person asked for; an error becomes a notice. */
  async attempt(task: () => Promise<void>): Promise<void> {
    try {
      await task();
    } catch (error) {
      notice(error instanceof Error ? error.message : String(error));
    }
  }

  /** Explores with another share from the next shelf on. */
  async explore(epsilon: number): Promise<void> {
    await this.session.explore(epsilon);
    const shelf = await this.refresh();
    announce(`${shelf.changed} of ${shelf.cards.length} titles are new.`);
  }

  private async judge(card: Card, isLiked: boolean): Promise<void> {
    await this.session.judge(card, isLiked);
    const shelf = await this.refresh();
    const said = `${isLiked ? "Liked" : "Not for you"}: ${plainTitle(card.title)}.`;
    announce(`${said} ${shelf.changed} of ${shelf.cards.length} titles are new.`);
  }

  private async why(card: Card): Promise<void> {
    const reasons = await this.session.why(card);
    if (reasons !== null) {
      showReasons(reasons);
    }
  }

  private async forget(): Promise<void> {
    await this.session.forget();
    await this.refresh();
    announce("You are forgotten.");
  }

  private changeRules(): void {
    this.session.keepChoices();
    void this.attempt(async () => {
      const shelf = await this.refresh();
      announce(`${shelf.cards.length} titles.`);
    });
  }

  private showHeading(shelf: Shelf): void {
    const isSearch = shelf.query !== "";
    part("shelf-title").textContent = isSearch ? `“${shelf.query}”` : "For you";
    const found = isSearch ? `${shelf.cards.length} found` : "";
    const eligible = shelf.eligible?.toLocaleString();
    const of = eligible === undefined ? found : `${shelf.cards.length} of ${eligible}`;
    part("shelf-note").textContent = of;
    const empty = part("empty");
    empty.hidden = shelf.cards.length > 0;
    empty.textContent = isSearch ? "Nothing found." : "No title meets these rules.";
  }

  private showTaste(): void {
    const verdicts = [...this.session.choices.verdicts].reverse();
    const rows = verdicts.slice(0, SHOWN_VERDICTS).map(({ id, title, isLiked }) => {
      const row = element("li", { class: isLiked ? "" : "not" }, plainTitle(title));
      style(row, { "--hue": this.view.hue(this.titles.get(id) ?? { attributes: {} }) });
      return row;
    });
    const more = verdicts.length - rows.length;
    const rest = more > 0 ? [element("li", { class: "more" }, `and ${more} more`)] : [];
    part("taste").replaceChildren(...rows, ...rest);
    part("taste-empty").hidden = verdicts.length > 0;
    part("forget").hidden = verdicts.length === 0;
  }
}

async function main(): Promise<void> {
  const response = await fetch("config.json", { cache: "no-cache" });
  const config = (await response.json()) as PageConfig;
  const bundle = new PageBundle(config);
  const [catalog, exploration] = await Promise.all([bundle.catalog(), bundle.exploration()]);
  const columns = findColumns(catalog);

  const session = await Session.open(bundle, columns, catalog);
  const page = new Page(session, columns, catalog);
  connectExploration(exploration, SHELF_ITEMS, session.choices, (epsilon) => {
    void page.attempt(() => page.explore(epsilon));
  });
  await page.refresh();
  void prepareForLater(session);
  setInterval(() => page.showFigures(), FIGURES_MS);
  addEventListener("online", () => page.showFigures());
  addEventListener("offline", () => page.showFigures());
}

/** Keeps the page for times without a network, then loads what searching needs. */
async function prepareForLater(session: Session): Promise<void> {
  if ("serviceWorker" in navigator) {
    // Not earlier: it fetches everything again, while the first shelf waits for the same files.
    const kept = navigator.serviceWorker.register("worker.js");
    await kept.then(() => navigator.serviceWorker.ready, () => undefined);
  }
  await session.engine.warmUp({ search: true, encoder: true }).catch(() => undefined);
}

function announce(text: string): void {
  part("announcer").textContent = text;
}

let noticeTimer = 0;

function notice(text: string): void {
  const shown = part("notice");
  shown.textContent = text;
  shown.hidden = false;
  clearTimeout(noticeTimer); // an earlier notice must not end this one
  noticeTimer = window.setTimeout(() => {
    shown.hidden = true;
  }, NOTICE_MS);
}

void main().catch((error: unknown) => {
  part("connection").textContent = "";
  notice(error instanceof Error ? error.message : String(error));
});
