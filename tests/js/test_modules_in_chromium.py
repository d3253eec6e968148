"""Tests of conformance, storing and uploading, as Node runs them, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import pages
from tests.support.javascript import PACKAGE, needs_node

pytestmark = [pytest.mark.browser, needs_node, pages.needs_browser]

FOLDER = PACKAGE / "test"
STORING = ("engineRewards", "outbox/outbox", "outbox/storage", "upload/uploader")
TESTS = [
    *sorted(path.relative_to(FOLDER) for path in (FOLDER / "conformance").glob("*.test.ts")),
    *(Path(f"{name}.test.ts") for name in STORING),
]

RUN = """
async (name) => {
  const { runTests } = await import('/engine/js/dist/test/browser/nodeModules.js');
  return runTests(`/engine/js/dist/test/${name}`);
}
"""


@pytest.fixture(scope="module")
def runner(compiled, chromium):
    """A tab that runs modules of tests."""
    server = pages.ModuleServer()
    server.start()
    context = chromium.new_context()
    tab = context.new_page()
    tab.set_default_timeout(300_000)
    tab.goto(f"{server.url}runner")
    yield tab
    context.close()
    server.stop()


@pytest.mark.parametrize("path", TESTS, ids=str)
def test_modules_of_tests_pass_in_chromium(runner, path):
    """Each module of tests passes in the browser as in Node."""
    outcomes = runner.evaluate(RUN, path.as_posix().replace(".ts", ".js"))
    assert outcomes
    assert [outcome for outcome in outcomes if outcome["error"]] == []
