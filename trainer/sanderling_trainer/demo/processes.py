"""The demo's processes as the parent sees them: devices, the collector and the release server."""

from __future__ import annotations

import json
import os
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

from sanderling_trainer.demo.device_process import DeviceSetup
from sanderling_trainer.releases import http_server

ANSWER_TIMEOUT_S = 300.0
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


class Device:
    """A process of some devices.

    Their state folders outlive it, so that `kill` and `start` are a power cycle.
    """

    def __init__(self, setup: DeviceSetup, log: Path) -> None:
        self.setup = setup
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._answers: Queue[dict[str, Any] | None] = Queue()

    def start(self) -> None:
        """Start the process and wait until its engines are open."""
        module = "sanderling_trainer.demo.device_process"
        command = [sys.executable, "-m", module, json.dumps(asdict(self.setup))]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._answers = Queue()
        reader = threading.Thread(
            target=_read_answers, args=(self._process, self._answers), daemon=True
        )
        reader.start()
        self.wait("ready")

    def send(self, **command: Any) -> None:
        """Send a command."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def wait(self, event: str, progress: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Return the next answer of this name; `progress` is called for each answer before it.

        Raises:
            ChildProcessError: the process ended, or sent nothing for `ANSWER_TIMEOUT_S`.
        """
        while True:
            try:
                answer = self._answers.get(timeout=ANSWER_TIMEOUT_S)
            except Empty:
                answer = None
            if answer is None:
                raise ChildProcessError(
                    f"a device of the demo ended or stopped answering; see {self._log}"
                )
            if answer["event"] == event:
                return answer
            progress()

    def wait_for_step(self, progress: Callable[[], None]) -> None:
        """Wait for one visit of a night."""
        self.wait("step")
        progress()

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End the process at once, as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Close the engines and end the process, if it runs."""
        if self._process is not None and self.running:
            self.send(do="quit")
            self._process.wait(timeout=STOP_TIMEOUT_S)


class CollectorProcess:
    """`sanderling collect` on the loopback interface; it can be stopped and started again."""

    def __init__(self, store: Path, token: str, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        arguments = ["collect", "--store", str(store), "--port", str(self.port)]
        self._command = [sys.executable, "-m", "sanderling", *arguments]
        # Not as an argument: every user of the machine sees those.
        self._environment = {**os.environ, "SANDERLING_TOKEN": token}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ChildProcessError: it ended, or did not answer within `START_TIMEOUT_S`.
        """
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_healthy(f"http://127.0.0.1:{self.port}/healthz"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ChildProcessError(f"the collector did not start; see {self._log}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Let it finish its requests and end, if it runs."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=STOP_TIMEOUT_S)
            self._process = None


class ReleaseServer:
    """A web server for the release repository, on loopback, in a thread of this process."""

    def __init__(self, repository: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        app = http_server.app(repository)
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning")
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
    """Return a TCP port on loopback that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _read_answers(process: subprocess.Popen[str], answers: Queue[dict[str, Any] | None]) -> None:
    """Put each JSON line of the process's stdout into the queue, and None at its end."""
    assert process.stdout is not None
    for line in process.stdout:
        try:
            answers.put(json.loads(line))
        except json.JSONDecodeError:
            # A library's own output, or a line that a kill cut short.
            continue
    answers.put(None)


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
