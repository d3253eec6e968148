"""The compiled package, and a process of Node that answers calls, once for all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.javascript import NodeCalls, compile_package
from tests.support.pages import BROWSER


@pytest.fixture(scope="session")
def compiled() -> Path:
    """The folder with the compiled package."""
    return compile_package()


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


@pytest.fixture(scope="session")
def node(compiled: Path) -> Iterator[NodeCalls]:
    """Calls into the compiled package."""
    calls = NodeCalls(compiled)
    yield calls
    calls.close()
