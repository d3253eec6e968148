/** What a person chose, kept for the next visit: verdicts, rules, and how much is explored. */

/** What somebody said of an item. */
export interface Verdict {
  readonly id: string;
  readonly title: string;
  readonly isLiked: boolean;
}

/** The choices of one person. */
export interface Choices {
  verdicts: readonly Verdict[];

  /** The chosen labels of the category; none for all. */
  labels: readonly string[];

  /** The lowest and highest step of the range; null for all. */
  span: readonly [number, number] | null;

  /** The words to search; empty for recommendations. Not kept. */
  query: string;

  /** The share of explored slots; null for the bundle's own. */
  epsilon: number | null;
}

const KEY = "sanderling.choices";

/** Returns the choices of the last visit; none where the browser keeps nothing. */
export function loadChoices(): Choices {
  const none: Choices = { verdicts: [], labels: [], span: null, query: "", epsilon: null };
  try {
    return { ...none, ...JSON.parse(localStorage.getItem(KEY) ?? "{}"), query: "" };
  } catch {
    return none;
  }
}

/** Keeps the choices; a browser that keeps nothing is no error. */
export function saveChoices(choices: Choices): void {
  try {
    const { query: _, ...kept } = choices;
    localStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // Private windows and full disks: the choices last as long as the page.
  }
}
