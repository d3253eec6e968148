"""The tutorial works: its commands run in their order, its files are written as they stand there.

Only what installs is left out: the commands run by this environment's Python.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from sanderling_trainer.demo.page_server import INDEX, PAGE
from tests.support.doc_blocks import ROOT, Block, blocks_of

BLOCKS = [block for block in blocks_of("docs/tutorial.md") if block.language in ("sh", "python")]
FIRST = next(place for place, block in enumerate(BLOCKS) if block.code.startswith("make install"))
"""The first block that needs the lab."""

INSTALLING = re.compile(r"^(python3 -m venv|look/bin/pip|make install|make page).*\n", re.MULTILINE)
SERVERS = {"second terminal": "8080", "third terminal": "8081", "browser": "8765"}
"""Blocks that run until they are stopped, and their ports."""


class Newcomer:
    """Somebody who follows the tutorial in a folder."""

    def __init__(self, clone: Path) -> None:
        self._clone = clone
        self._place = clone
        self._servers: list[subprocess.Popen[bytes]] = []
        self._ports = {port: _free_port() for port in SERVERS.values()}
        for folder in ("look/bin", ".venv/bin"):
            (clone / folder).mkdir(parents=True)
            for name, module in (("python", ""), ("sanderling", "-m sanderling")):
                shim = clone / folder / name
                shim.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
                shim.chmod(0o755)
        activate = f"export PATH={clone}/.venv/bin:$PATH\n"
        (clone / ".venv/bin/activate").write_text(activate)
        (clone / "docs").mkdir()
        shutil.copytree(ROOT / "docs/tutorial_files", clone / "docs/tutorial_files")

    def follow(self, block: Block) -> str:
        """Write a block's file, start its server, or run its commands and return their output."""
        code = INSTALLING.sub("", block.code)
        for port, free in self._ports.items():
            code = code.replace(port, free)
        if block.language == "python":
            (self._place / block.title).write_text(code, encoding="utf-8")
            return ""
        if block.title in SERVERS:
            port = self._ports[SERVERS[block.title]]
            # The page's command names no port, since 8765 is its own.
            self._start(code if port in code else f"{code.rstrip()} --port {port}", port)
            return ""
        return self.type(code)

    def type(self, code: str) -> str:
        """Run commands in one shell after those before, and return what they wrote to stdout."""
        activate = f". {self._clone}/.venv/bin/activate\n" if self._place != self._clone else ""
        variables = f"set -a; touch {self._clone}/variables; . {self._clone}/variables\n"
        script = f"{activate}{variables}{code}\npwd > {self._clone}/place\n"
        script += f"env | grep ^SANDERLING_ROOT_ > {self._clone}/variables || true\n"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self._place,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=1500,
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        self._place = Path((self._clone / "place").read_text().strip())
        return done.stdout

    def _start(self, code: str, port: str) -> None:
        *before, last = code.strip().splitlines()
        code = "\n".join([*before, f"exec {last}"])
        code = code.replace("exec sanderling", f"exec {sys.executable} -m sanderling")
        server = subprocess.Popen(["bash", "-eu", "-c", code], cwd=self._place)
        self._servers.append(server)
        end = time.monotonic() + 120
        while time.monotonic() < end and server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(port))) == 0:
                    return
            time.sleep(0.2)
        raise AssertionError(f"expected a server on port {port}: {code}")

    def look(self, path: str) -> bytes:
        """Return what the page's server answers."""
        with urlopen(f"http://localhost:{self._ports['8765']}{path}", timeout=30) as answer:
            return answer.read()

    def close(self) -> None:
        """End the servers."""
        for server in self._servers:
            server.terminate()
            server.wait(30)


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


@pytest.fixture
def newcomer(tmp_path, monkeypatch) -> Iterator[Newcomer]:
    """Somebody with a clone, whose servers are ended."""
    monkeypatch.delenv("SANDERLING_TOKEN", raising=False)
    person = Newcomer(tmp_path / "clone")
    yield person
    person.close()


def test_the_first_look_runs(newcomer):
    """The part without the lab: the tiny demo, and the first program from Python."""
    output = "".join(newcomer.follow(block) for block in BLOCKS[:FIRST])
    assert "the reward is on the disk: True" in output
    assert "is shown because of" in output


def share(output: str) -> float:
    """Return the percentage that readers.py printed last."""
    return float(re.findall(r", ([\d.]+)%", output)[-1])


@pytest.mark.tutorial
def test_the_whole_tutorial_runs(newcomer):
    """Trained, quantized, on devices, collected, retrained, published, installed, in a browser; the
    second release is better than the first.

    The release gate may hold a candidate by chance; then what the tutorial says to do is done. The
    browser's part runs where `make page` has built the page.
    """
    shares = []
    for block in BLOCKS:
        if block.title == "browser":
            if (PAGE / INDEX).is_file():
                newcomer.follow(block)
                assert b"<html" in newcomer.look("/")
                assert json.loads(newcomer.look("/bundle/manifest.json"))["app"] == "books"
            continue
        if block.code.startswith("sanderling retrain"):
            line = block.code.strip()
            again = f"python readers.py bundle night-1b 80 && {line}"
            block = Block(block.page, block.line, "sh", "", f"{line} || ({again})")
        output = newcomer.follow(block)
        if block.code.startswith("sanderling update"):
            assert "release 2 is active" in output
        if block.code.startswith("python readers.py"):
            shares.append(share(output))
    first, second = shares
    assert second > first


def test_a_missing_server_is_an_error(newcomer):
    """The test of the tutorial fails where a server does not start, or its page is not there."""
    with pytest.raises(AssertionError, match="expected a server"):
        newcomer.follow(Block("", 1, "sh", "second terminal", "exit 0\ntrue\n"))
    with pytest.raises(URLError):
        newcomer.look("/")
