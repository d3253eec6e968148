"""The page that learns, in Chromium: bytes, the first shelf from an empty cache, one `recommend`.

The page is what `make page` wrote, served beside a collector on loopback. Each first shelf has a
browser context of its own, so nothing is cached; the time runs from the navigation to the cards.
`recommend` is the engine's call with decisions stored in IndexedDB, awaited one after the other, on
the page's bundle and on one of 1,000 random items with d = 64; k = 12, three known users.

    python -m bench page
"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from bench.serving.random_bundle import write_random_bundle
from sanderling.cli.tiny import BUNDLE
from sanderling_trainer.collector.server import uvicorn_options
from sanderling_trainer.demo.page_server import HOST, PAGE, page_app
from sanderling_trainer.demo.processes import free_port
from tools.page import gzipped_sizes

OPENINGS = 9
CALLS = 2000
WARM_UP = 200
ITEMS = 1000
DIM = 64

RECOMMEND = """
async ([warmUp, calls]) => {
  const { Engine, loadKernels } = await import('/engine/dist/sanderling.js');
  const engine = await Engine.open(new URL('/bundle/', location), {
    kernels: await loadKernels(), state: 'bench',
  });
  const { items } = await engine.recommend({ user: 'user 0', k: 60 });
  for (const [i, item] of items.entries()) {
    await engine.observe(`user ${i % 3}`, item.id, 'like');
  }
  const times = [];
  for (let i = 0; i < warmUp + calls; i++) {
    const start = performance.now();
    await engine.recommend({ user: `user ${i % 3}`, k: 12 });
    times.push(performance.now() - start);
  }
  await engine.close();
  return times.slice(warmUp);
}
"""

FIRST_SHELF = "performance.getEntriesByName('first-shelf')[0].startTime"


def run(arguments: list[str]) -> dict[str, Any]:
    """Return gzipped bytes of each part, ms to the first shelf, and ms of `recommend`."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        write_random_bundle(folder / "bundle", items=ITEMS, dim=DIM)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        result = {
            "load": os.getloadavg()[0],
            "gzipped_bytes": gzipped_sizes(PAGE),
            "first_shelf_ms": _first_shelves(browser, folder),
            "recommend_ms": _recommends(browser, BUNDLE, folder / "a"),
            f"recommend_{ITEMS}_ms": _recommends(browser, folder / "bundle", folder / "b"),
        }
        browser.close()
    return result


def _first_shelves(browser: Any, folder: Path) -> list[float]:
    """Return the times of all openings, the quickest first."""
    times = []
    with _serving(BUNDLE, folder / "first") as url:
        for _ in range(OPENINGS):
            context = browser.new_context()
            tab = context.new_page()
            tab.goto(url)
            tab.wait_for_selector(".card")
            times.append(round(tab.evaluate(FIRST_SHELF), 1))
            context.close()
    return sorted(times)


def _recommends(browser: Any, bundle: Path, store: Path) -> dict[str, float]:
    with _serving(bundle, store) as url:
        context = browser.new_context()
        tab = context.new_page()
        tab.goto(f"{url}config.json")
        times = sorted(tab.evaluate(RECOMMEND, [WARM_UP, CALLS]))
        context.close()
    return {"p50": statistics.median(times), "p99": times[len(times) * 99 // 100]}


@contextmanager
def _serving(bundle: Path, store: Path) -> Iterator[str]:
    port = free_port()
    app = page_app(bundle, store, "token-of-the-bench")
    server = uvicorn.Server(uvicorn.Config(app, host=HOST, port=port, **uvicorn_options()))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://localhost:{port}/"
    finally:
        server.should_exit = True
        thread.join()
