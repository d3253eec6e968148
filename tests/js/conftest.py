"""The compiled package, and a process of Node that answers calls, once for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sanderling.cli.tiny import BUNDLE
from tests.support.javascript import NodeCalls, compile_package
from tests.support.pages import BROWSER, PageServer
from tools import page


@pytest.fixture(scope="session")
def compiled() -> Path:
    """The folder with the compiled package."""
    return compile_package()


@pytest.fixture(scope="session")
def page_folder(compiled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as `make page` writes it."""
    folder = tmp_path_factory.mktemp("site") / "page"
    page.build(folder, BUNDLE)
    return folder


@pytest.fixture
def page_server(page_folder: Path, tmp_path: Path) -> Iterator[PageServer]:
    """The page and a collector, on a port of their own."""
    server = PageServer(tmp_path / "events", page_folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def playwright() -> Iterator[Any]:
    """Playwright. Its loop runs until the module is done: no test beside it may call
    `asyncio.run`.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def chromium(playwright: Any) -> Iterator[Any]:
    """Chromium without a profile of its own."""
    launched = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
    yield launched
    launched.close()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens contexts with a profile of this test; an error in a page fails the test."""
    errors: list[str] = []

    with ExitStack() as opened:

        def open_context(**settings: Any) -> Any:
            context = chromium.new_context(**settings)
            context.on("weberror", lambda error: errors.append(str(error.error)))
            opened.callback(context.close)
            return context

        yield open_context
    assert errors == []


@pytest.fixture(scope="session")
def node(compiled: Path) -> Iterator[NodeCalls]:
    """Calls into the compiled package."""
    calls = NodeCalls(compiled)
    yield calls
    calls.close()
