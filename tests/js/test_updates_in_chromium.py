"""Updates of a page in a real browser: signatures by its WebCrypto, bundles in its IndexedDB."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tests.support import pages
from tests.support.javascript import PACKAGE, needs_node

pytestmark = [pytest.mark.lab, pytest.mark.browser, needs_node, pages.needs_browser]

OPEN = """
async (root) => {
  const { Engine } = await import('/package/dist/src/index.js');
  window.engine = await Engine.open('/bundle/', { state: 'shop', releases: '/releases', root });
  window.shown = async () => (await engine.recommend({ user: 'anna', k: 3 })).release;
  return engine.release;
}
"""


class Shop:
    """A page with the app's bundle and a release repository, and tabs of one profile."""

    def __init__(self, world: Any, context: Any) -> None:
        self.world = world
        self._context = context
        self._server = pages.SocketServer(self._app)
        self._server.start()

    def tab(self, release: int) -> Any:
        """Open a tab whose engine starts with this release."""
        tab = self._context.new_page()
        tab.goto(self._server.url)
        assert tab.evaluate(OPEN, self.world.root.decode()) == release
        return tab

    def close(self) -> None:
        """Close the tabs and the server."""
        self._context.close()
        self._server.stop()

    def _app(self) -> Starlette:
        async def page(request: Any) -> HTMLResponse:
            return HTMLResponse("<!doctype html><title>Shop</title>")

        return Starlette(
            routes=[
                Route("/", page),
                Mount("/package", StaticFiles(directory=PACKAGE)),
                Mount("/bundle", StaticFiles(directory=self.world.folder / "one")),
                Mount("/releases", self.world.server.files),
            ]
        )


# The first tab confirms in the background: until then the second one may not update.
JOIN = """async () => {
  while ((await engine.update().catch(() => null)) !== 2) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}"""


@pytest.fixture
def shop(world: Any, compiled: Any, chromium: Any) -> Iterator[Shop]:
    """A shop whose visitor has not been there before."""
    world.publish("two")
    shop = Shop(world, chromium.new_context())
    yield shop
    shop.close()


def test_a_page_updates_and_keeps_the_release(shop: Shop) -> None:
    """A page fetches a release, verifies and confirms it; the next page opens it at once."""
    tab = shop.tab(1)
    assert tab.evaluate("shown()") == 1
    assert tab.evaluate("engine.update()") == 2
    assert tab.evaluate("shown()") == 2
    tab.close()
    tab = shop.tab(2)
    assert tab.evaluate("engine.update()") is None
    assert tab.evaluate("engine.rollback()") == 1
    assert tab.evaluate("engine.update()") is None


def test_a_tab_that_is_closed_during_an_update(shop: Shop) -> None:
    """A tab that ends in the middle of an update leaves the old release; the next tab updates."""
    tab = shop.tab(1)
    assert tab.evaluate("shown()") == 1
    tab.route("**/*.items.safetensors", lambda route: None)
    tab.evaluate("window.updating = engine.update().catch(() => {}), null")
    tab.wait_for_timeout(300)
    tab.close()
    tab = shop.tab(1)
    assert tab.evaluate("shown()") == 1
    assert tab.evaluate("engine.update()") == 2
    assert tab.evaluate("shown()") == 2


def test_one_tab_tries_a_release(shop: Shop) -> None:
    """While one tab has a release on trial, another uses what is confirmed; then it joins."""
    first = shop.tab(1)
    assert first.evaluate("engine.update()") == 2
    second = shop.tab(1)
    fault = second.evaluate("engine.update().catch((error) => `${error}`)")
    assert "such as one in another tab" in fault
    assert first.evaluate("shown()") == 2
    second.evaluate(JOIN)
    assert second.evaluate("shown()") == 2


def test_a_page_refuses_another_publisher(shop: Shop) -> None:
    """What the app's root does not trust is refused by the browser's own cryptography."""
    path = shop.world.repository / "metadata" / "timestamp.json"
    path.write_bytes(path.read_bytes().replace(b'"version":3', b'"version":4'))
    tab = shop.tab(1)
    fault = tab.evaluate("engine.update().catch((error) => `${error}`)")
    assert "not signed by the trusted keys" in fault
    assert tab.evaluate("shown()") == 1
