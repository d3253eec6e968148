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
  // Phones end hidden pages without another event, so each hiding may be the end.
  const end = (): void => {
    if (document.visibilityState === "hidden") {
      uploader.sendAtPageEnd();
    }
  };
  document.addEventListener("visibilitychange", end, { signal });
  addEventListener("pagehide", () => uploader.sendAtPageEnd(), { signal });
  addEventListener("online", () => uploader.resume(), { signal });
  return () => controller.abort();
}
