/** What a page tells the uploader: that it ends, and that the network is back. */

import type { Uploader } from "./uploader.js";

/** Returns whether this process is a page, whose end may come at any time. */
export function isPage(): boolean {
  return typeof document !== "undefined" && typeof addEventListener === "function";
}

/** Lets an uploader know of a page's events; returns how to stop that. Nothing elsewhere. */
export function watchPage(uploader: Uploader): () => void {
  if (!isPage()) {
    return () => {};
  }
  const controller = new AbortController();
  const { signal } = controller;
  addEventListener("online", () => uploader.resume(), { signal });
  const stopWatching = onPageEnd(() => uploader.sendAtPageEnd());
  return () => {
    controller.abort();
    stopWatching();
  };
}

/** Calls when the page may end; returns how to stop that. Never elsewhere. */
export function onPageEnd(end: () => void): () => void {
  if (!isPage()) {
    return () => {};
  }
  const controller = new AbortController();
  const { signal } = controller;
  // Phones end hidden pages without another event, so each hiding may be the end.
  const hidden = (): void => {
    if (document.visibilityState === "hidden") {
      end();
    }
  };
  document.addEventListener("visibilitychange", hidden, { signal });
  addEventListener("pagehide", end, { signal });
  return () => controller.abort();
}
