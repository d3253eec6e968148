"""The JavaScript package in tests: where it is, whether it can run, and calls into it."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "engine" / "js"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(
    NODE is None or not (PACKAGE / "node_modules" / "ready").exists(),
    reason="needs Node 20 and `make engine/js/node_modules/ready`, which calls npm",
)


def compile_package() -> Path:
    """Return the folder with the package compiled from the present sources; tsc skips what is
    there."""
    folder = PACKAGE / "dist"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["npm", "run", "--silent", "build"]
        done = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class NodeCalls:
    """A process of Node that answers calls, see `engine/js/test/support/answer.ts`."""

    def __init__(self, compiled: Path) -> None:
        assert NODE is not None
        self._process = subprocess.Popen(
            [NODE, compiled / "test" / "support" / "answer.js"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def __call__(self, name: str, *parameters: Any) -> Any:
        """Return what a function returns; raise `ValueError` with the message where it throws."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *parameters]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
