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
    """A process of Node that answers calls; `script` is one of `engine/js/test/support`."""

    def __init__(self, compiled: Path, script: str = "answer") -> None:
        assert NODE is not None
        self._process = subprocess.Popen(
            [NODE, compiled / "test" / "support" / f"{script}.js"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def __call__(self, name: str, *parameters: Any) -> Any:
        """Return what a function returns; raise `ValueError` with the message where it throws,
        `EOFError` where the process ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, *parameters]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise EOFError(f"the process of Node ended with {self._process.wait(10)}")
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["value"]

    def kill(self) -> None:
        """End the process as the system does that runs out of memory."""
        self._process.kill()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
