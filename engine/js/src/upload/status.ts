/** What a response of the collector, or of whatever answered in its place, means for the app. */

import type { TransportResponse } from "./transport.js";

/** A page may not see where a redirect leads: its status is then 0. */
const REDIRECTS = new Set([0, 301, 302, 303, 307, 308]);

/** Statuses below 500 that end by themselves. */
const TRANSIENT = new Set([408, 413, 425, 429]);

const NO_COLLECTOR =
  "there is no collector at this URL; check `collector`, such as https://rewards.example/v1";

const MEANINGS: Readonly<Record<number, string>> = {
  200:
    "the answer is not that of a collector; check the URL of `collector`, or sign in to the" +
    " network",
  401:
    "the collector does not accept the token; check `token` (`sanderling tokens list` names those" +
    " that were issued)",
  403: "a proxy before the collector refuses the device; check its rules",
  404: NO_COLLECTOR,
  405: NO_COLLECTOR,
  410: "the collector, or a proxy before it, says that the URL is gone; check `collector`",
  413: "a single event is larger than a proxy before the collector allows; raise its limit",
  415: "the collector does not know gzip; update it",
  429: "too many requests; trying again later",
  503: "the collector is overloaded or not ready; trying again later",
};

/** Returns whether a status lasts until somebody changes the URL, the token or a proxy. */
export function needsAction(status: number): boolean {
  return status < 500 && !TRANSIENT.has(status);
}

/** Returns in one line what a response without verdicts means, and what to do about it. */
export function meaning({ status, header }: TransportResponse): string {
  if (REDIRECTS.has(status)) {
    return (
      `${status}: the URL of \`collector\` redirects to ${header("location") ?? "another"}, which` +
      " is not followed; if that is the collector, give its URL"
    );
  }
  return `${status}: ${MEANINGS[status] ?? rangeMeaning(status)}`;
}

function rangeMeaning(status: number): string {
  if (status >= 500) {
    return "the collector, or a proxy before it, fails; trying again later";
  }
  return status >= 400
    ? "the collector, or a proxy before it, refuses this batch; see its log"
    : MEANINGS[200]!;
}
