"""The demo's processes, seen from the parent: devices that obey commands, the collector, the releases' web server.

Refuses to know what is replayed and what is learned.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import uvicorn

from sanderling_trainer import release_repository
from sanderling_trainer.demo.device_process import Plan

PATIENCE_S = 300.0


class Device:
    """A device process. Its state folder outlives it: `kill` and `start` are a power cycle."""

    def __init__(self, plan: Plan, log: Path) -> None:
        self.plan, self._log = plan, log
        self._process: subprocess.Popen[str] | None = None
        self._answers: Queue[dict[str, Any] | None] = Queue()

    def start(self) -> None:
        """Start the process and wait until its engine is open."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "sanderling_trainer.demo.device_process",
                    json.dumps(asdict(self.plan)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._answers = Queue()
        threading.Thread(target=_listen, args=(self._process, self._answers), daemon=True).start()
        self.wait("ready")

    def tell(self, **command: Any) -> None:
        """Send a command."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def wait(self, event: str, progress: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Return the answer of this name; `progress` is called for each step that comes before it.

        Raises `ChildProcessError` when the process ends, or is silent for five minutes.
        """
        while True:
            try:
                answer = self._answers.get(timeout=PATIENCE_S)
            except Empty:
                answer = None
            if answer is None:
                raise ChildProcessError(f"a device ended or fell silent; see {self._log}")
            if answer["event"] == event:
                return answer
            progress()

    def step(self, progress: Callable[[], None]) -> None:
        """Wait for one step of a replay."""
        self.wait("step")
        progress()

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End the process at once, as a power switch does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Let the process close its engine and end."""
        if self._process is not None and self.running:
            self.tell(do="quit")
            self._process.wait(timeout=30)


class CollectorProcess:
    """`sanderling collect` on loopback; it can be unplugged and plugged in again."""

    def __init__(self, store: Path, token: str, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        command = ["collect", "--store", str(store), "--port", str(self.port), "--token", token]
        self._command, self._log = [sys.executable, "-m", "sanderling", *command], log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("a") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while not _answers(f"http://127.0.0.1:{self.port}/healthz"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ChildProcessError(f"the collector did not start; see {self._log}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it in good order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)
            self._process = None


class ReleaseServer:
    """The signed releases on loopback, in a thread of this process."""

    def __init__(self, repository: Path) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        config = uvicorn.Config(
            release_repository.app(repository), host="127.0.0.1", port=port, log_level="warning"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def start(self) -> None:
        """Start serving."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(timeout=10)


def free_port() -> int:
    """Return a TCP port on loopback that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _listen(process: subprocess.Popen[str], answers: Queue[dict[str, Any] | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        try:
            answers.put(json.loads(line))
        except json.JSONDecodeError:
            continue
    answers.put(None)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
