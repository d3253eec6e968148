"""The page on the service: its commands, its JavaScript and its tables are true."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sanderling.cli.tiny import BUNDLE
from sanderling.service.limits import Limits
from sanderling.service.server import CLOSE_S, FINISH_REQUESTS_S
from tests.support.services import COMMAND

PAGE = (Path(__file__).parents[2] / "docs" / "SERVICE.md").read_text(encoding="utf-8")
PORT = "8765"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def run(script: str, folder: Path) -> str:
    """Run a script of bash that may use `sanderling`; return what it wrote to stdout."""
    (folder / "sanderling").write_text(
        f"#!/bin/sh\nshift\nexec {sys.executable} -c '{COMMAND}' \"$@\""
    )
    (folder / "sanderling").chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    end = "\nkill -TERM %1\nwait %1\n"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script + end],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_commands_and_the_javascript_of_the_page_run(tmp_path):
    """A service is started, called with curl and by Node.js, and ends with 0 on SIGTERM."""
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    script = "\n".join(blocks("sh"))
    if shutil.which("node"):
        [client] = blocks("javascript")
        (tmp_path / "client.mjs").write_text(client.replace(PORT, port), encoding="utf-8")
        script += "\nnode client.mjs\n"
    output = run(script.replace(PORT, port), tmp_path)
    assert '{"stored":true' in output
    assert '"the-sea-wolf"' in output
    if shutil.which("node"):
        assert re.search(r"^true$", output, re.MULTILINE)


def test_the_page_names_the_limits():
    """The numbers on the page are those of the code."""
    limits = Limits()
    assert f"| connections | {limits.connections};" in PAGE
    assert f"An idle one closes after {limits.idle_s} s" in PAGE
    assert (
        f"{limits.head_bytes // 1024} KiB and {limits.body_bytes >> 20} MiB, {limits.body_s:g} s"
        f" each; all bodies at once {limits.total_body_bytes >> 20} MiB" in PAGE
    )
    assert limits.head_s == limits.body_s
    assert f"last {limits.slates:,} slates, or {limits.slate_items:,} items" in PAGE
    assert f"({FINISH_REQUESTS_S} s), writes what is queued ({CLOSE_S:g} s)" in PAGE
    assert f"{limits.long_calls}" == "4"
    assert "four at once" in PAGE
