"""The apps in examples/: they are checked as far as it goes without the SDK of a phone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from tests.support.javascript import NODE, ROOT, needs_node
from tests.support.pages import SocketServer, needs_browser

EXAMPLES = ROOT / "examples"

STORED_TYPES = """
async () => {
  const { IndexedDbStorage } = await import('/engine/dist/src/index.js');
  const storage = await IndexedDbStorage.open('sanderling');
  const { rows } = await storage.load();
  await storage.close();
  return rows.map(({ type }) => type);
}
"""

pytestmark = needs_node


def run(app: Path, *command: str) -> None:
    """Run a command in an app's folder; it must succeed."""
    done = subprocess.run(command, cwd=app, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.browser
@needs_browser
def test_the_page_of_the_capacitor_app_stores_what_was_tapped(compiled, chromium):
    """The folder that goes into the app is complete: under its content security policy a tap's
    reward is stored, and is there after a reload."""
    app = EXAMPLES / "capacitor"
    assert NODE is not None
    run(app, NODE, "build.mjs")
    files = StaticFiles(directory=app / "www", html=True)
    server = SocketServer(lambda: Starlette(routes=[Mount("/", files)]))
    server.start()
    context = chromium.new_context()
    tab = context.new_page()
    faults: list[str] = []
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("console", lambda message: faults.append(message.text))
    tab.goto(server.url)
    tab.wait_for_selector("#shelf button")
    assert tab.locator("#shelf button").count() == 10
    title = tab.locator("#shelf button").first.text_content().split(" · explored")[0].strip()
    tab.locator("#shelf button").first.click()
    tab.wait_for_function("document.querySelector('#status').textContent !== ''")
    assert tab.locator("#status").text_content() == f"Noted: {title}"

    tab.reload()
    tab.wait_for_selector("#shelf button")
    assert tab.evaluate(STORED_TYPES).count("outcome") == 1
    missing = "Failed to load resource: the server responded with a status of 404"
    assert [fault for fault in faults if missing not in fault] == []  # optional files of bundles
    context.close()
    server.stop()


@pytest.mark.skipif(
    not (EXAMPLES / "react-native" / "node_modules" / "react-native").exists(),
    reason="needs the packages of the app: `npm install` in examples/react-native (300 MB)",
)
def test_the_react_native_app_has_no_type_errors(compiled):
    """The app agrees with the types of the engine, of React Native and of AsyncStorage."""
    run(EXAMPLES / "react-native", "npm", "run", "--silent", "check")
