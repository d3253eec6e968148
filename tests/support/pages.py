"""The page that learns on a real socket, and what a person does to it in a real browser."""

from __future__ import annotations

import importlib.util
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from sanderling.cli.tiny import BUNDLE
from sanderling.events import codec
from sanderling.events.schema import Outcome
from sanderling_trainer.collector.server import uvicorn_options
from sanderling_trainer.demo.page_server import HOST, page_app
from sanderling_trainer.demo.processes import free_port
from sanderling_trainer.event_log import segment_format
from tests.support.javascript import PACKAGE, ROOT

TOKEN = "secret-of-the-page"
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
START_S = 60.0

NODE_MODULES = ("test", "assert/strict", "fs", "fs/promises", "path", "url", "crypto")
PACKAGES = "/engine/js/node_modules"
RUNNER_IMPORTS = {
    **{f"node:{name}": "/engine/js/dist/test/browser/nodeModules.js" for name in NODE_MODULES},
    "onnxruntime-web/wasm": f"{PACKAGES}/onnxruntime-web/dist/ort.wasm.min.mjs",
    "@huggingface/tokenizers": f"{PACKAGES}/@huggingface/tokenizers/dist/tokenizers.min.mjs",
    "fake-indexeddb": "/engine/js/dist/test/browser/indexedDb.js",
}

needs_browser = pytest.mark.skipif(
    BROWSER is None or importlib.util.find_spec("playwright") is None,
    reason="needs Chromium and Playwright: `apt install chromium`, `pip install playwright`",
)


class SocketServer:
    """An app on a port, a free one unless given, which can be stopped and started again."""

    def __init__(self, make_app: Callable[[], ASGIApp], port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://localhost:{self.port}/"
        self._make_app = make_app
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        config = uvicorn.Config(self._make_app(), host=HOST, port=self.port, **uvicorn_options())
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_S
        while not self._server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def stop(self) -> None:
        """Close every connection and the port."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(timeout=START_S)
            self._server = None


class PageServer(SocketServer):
    """The page, a bundle, and a collector over a store."""

    def __init__(self, store: Path, page: Path, bundle: Path = BUNDLE) -> None:
        self.store = store
        super().__init__(lambda: page_app(bundle, store, TOKEN, page))


class ModuleServer(SocketServer):
    """The repository's files, and a page in which the compiled tests run."""

    def __init__(self) -> None:
        async def listing(request: Request) -> JSONResponse:
            folder = ROOT / request.path_params["folder"]
            return JSONResponse(sorted(path.name for path in folder.iterdir()))

        async def runner(request: Request) -> HTMLResponse:
            imports = json.dumps({"imports": RUNNER_IMPORTS})
            return HTMLResponse(f'<script type="importmap">{imports}</script>')

        routes = [
            Route("/runner", runner),
            Route("/listing/{folder:path}", listing),
            Mount("/", StaticFiles(directory=ROOT)),
        ]
        super().__init__(lambda: Starlette(routes=routes))


class StoredReward(NamedTuple):
    """A reward whose promise resolved."""

    decision: str
    slot: int
    item: str


def open_page(context: Any, url: str) -> Any:
    """Return a tab with the page once its first shelf is there."""
    tab = context.new_page()
    tab.goto(url)
    tab.wait_for_selector(".card")
    return tab


def wait_for_worker(tab: Any) -> None:
    """Wait until the service worker has kept the page and controls it."""
    tab.evaluate("navigator.serviceWorker.ready.then(() => true)")
    tab.wait_for_function("navigator.serviceWorker.controller !== null")


def collect_stored(tab: Any) -> list[StoredReward]:
    """Return a list that grows with each reward whose promise resolves from now on."""
    stored: list[StoredReward] = []
    tab.expose_function("rewardStored", lambda detail: stored.append(StoredReward(**detail)))
    tab.evaluate(
        "document.addEventListener('sanderling:stored', event => rewardStored(event.detail))"
    )
    return stored


def shelf(tab: Any) -> list[str]:
    """Return the ids on the shelf, in order."""
    ids: list[str] = tab.eval_on_selector_all("#cards > li", "all => all.map(li => li.dataset.id)")
    return ids


def columns(tab: Any) -> int:
    """Return how many cards are in a row."""
    count: int = tab.evaluate(
        "getComputedStyle(document.querySelector('#cards')).gridTemplateColumns.split(' ').length"
    )
    return count


def counts(tab: Any) -> Counter[str]:
    """Return how many cards the ribbon counts of each label."""
    texts = tab.locator("#ribbon li").all_text_contents()
    pairs = [text.rsplit(" ", 1) for text in texts]
    return Counter({label: int(count) for label, count in pairs})


def judge(tab: Any, item: str, button: str = "like") -> None:
    """Press a card's button and wait until the shelf without it is there."""
    tab.click(f'#cards > li[data-id="{item}"] .{button}')
    tab.wait_for_selector(f'#cards > li[data-id="{item}"]', state="detached")


def choose(tab: Any, label: str) -> None:
    """Press a chip and wait for the shelf that follows its rule."""
    tab.evaluate("document.querySelector('#announcer').textContent = ''")
    tab.click(f'.chip:text-is("{label}")')
    tab.wait_for_function("document.querySelector('#announcer').textContent !== ''")


def explore(tab: Any, epsilon: float) -> None:
    """Set the share of exploration and wait for the shelf that follows."""
    tab.evaluate("document.querySelector('#announcer').textContent = ''")
    tab.fill("#epsilon", str(epsilon))
    tab.wait_for_function("document.querySelector('#announcer').textContent !== ''")


def wait_until_sent(tab: Any) -> None:
    """Wait until the page says that nothing waits to be sent."""
    tab.wait_for_function(
        "document.querySelector('#connection').textContent === 'Online'", timeout=90_000
    )


def times_received(store: Path, stored: list[StoredReward]) -> list[int]:
    """Return how often each reward is in the collector's segments."""
    received: Counter[tuple[str, int]] = Counter()
    for segment in store.glob(f"{segment_format.SEGMENTS}/*/*{segment_format.SUFFIX}"):
        for row in segment_format.unpack(segment.read_bytes()):
            event = codec.decode(bytes(segment_format.decode_line(row).event))
            if isinstance(event, Outcome):
                received[event.decision, event.slot] += 1
    return [received[reward.decision, reward.slot] for reward in stored]


def accessibility_faults(tab: Any) -> list[str]:
    """Return what axe-core finds, as `rule: element`."""
    tab.add_script_tag(path=PACKAGE / "node_modules" / "axe-core" / "axe.min.js")
    found = tab.evaluate("axe.run().then(result => result.violations)")
    return [f"{rule['id']}: {node['html']}" for rule in found for node in rule["nodes"]]
