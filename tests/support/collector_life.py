"""A collector in a child process that is killed or suspended, and devices that send to it.

The devices survive: they send what was not answered to the next collector over the same store.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from sanderling.events import codec
from sanderling.upload.transport import HttpTransport
from sanderling_trainer.collector.server import create_app, uvicorn_options
from sanderling_trainer.event_log import object_store
from sanderling_trainer.event_log.object_store import LocalObjectStore
from tests.support.fakes import EventFactory
from tests.support.store_points import StorePoints

DEVICES = 3
LATE_S = 5.0


def break_store(mutant: str) -> None:
    """Break the store of this process on purpose, in a way that a collector could be broken."""
    put, flush, fsync = LocalObjectStore.put, object_store.flush_path, os.fsync

    def late(act: Callable[..., None]) -> Callable[..., None]:
        return lambda *arguments: threading.Timer(LATE_S, act, arguments).start()

    if mutant == "answers before the commit":
        LocalObjectStore.put = late(put)  # type: ignore[method-assign]
    elif mutant == "answers before the folder's flush":
        object_store.flush_path = late(flush)
    elif mutant == "never flushes the folder":
        object_store.flush_path = lambda path: None
    elif mutant == "never flushes at all":
        object_store.flush_path = os.fsync = lambda path: None
    elif mutant == "never flushes the file":
        os.fsync = lambda handle: None if stat.S_ISREG(os.fstat(handle).st_mode) else fsync(handle)
    now = (LocalObjectStore.put, object_store.flush_path, os.fsync)
    assert not mutant or now != (put, flush, fsync), mutant


def collect(root: Path, listener: socket.socket, mutant: str, points: StorePoints | None) -> None:
    """Serve on a socket until the process crashes; requests have crash points beside those of the
    store.
    """
    break_store(mutant)
    serve = create_app(LocalObjectStore(root), "secret")
    if points is not None:
        points.watch()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def watched_send(message: Any) -> None:
            if points is not None and message["type"] == "http.response.start":
                points.pass_point("before answer")
            await send(message)
            if points is not None and message["type"] == "http.response.body":
                points.pass_point("after answer")

        if points is not None and scope["type"] == "http":
            points.pass_point("request")
        await serve(scope, receive, watched_send)

    uvicorn.Server(uvicorn.Config(app, **uvicorn_options())).run(sockets=[listener])


class Collector:
    """A collector in a child process; `points` are the arguments of `StorePoints`."""

    def __init__(self, root: Path, mutant: str = "", **points: Any) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = listener.getsockname()[1]
        self.child = os.fork()
        if self.child == 0:
            try:
                collect(root, listener, mutant, StorePoints(root, **points) if points else None)
            finally:
                os._exit(1)
        listener.close()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child, signal.SIGKILL)
        self.wait()

    def wait_for_stop(self) -> None:
        assert os.WIFSTOPPED(os.waitpid(self.child, os.WUNTRACED)[1])

    def go_on(self) -> None:
        os.kill(self.child, signal.SIGCONT)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])


class Device:
    """Sends small batches, each with an invalid event; records what was answered, and sends the
    rest again.
    """

    def __init__(self, number: int, timeout_s: float = 5.0) -> None:
        self.timeout_s = timeout_s
        self.make = EventFactory(f"{number:032x}", start=number << 32 | 1)
        self.seq = 0
        self.timeouts = 0
        self.waiting: dict[str, bytes] = {}
        self.sent: dict[str, bytes] = {}
        self.answered: set[str] = set()
        self.rejected: set[str] = set()

    def send(self, port: int, over: threading.Event) -> None:
        """Send to this port until `over` is set."""
        transport = HttpTransport(f"http://127.0.0.1:{port}/v1", "secret", self.timeout_s)
        while not over.is_set():
            if not self.waiting:
                self._record()
            try:
                answer = transport.post(
                    codec.pack(self.waiting.values()), {"content-encoding": "zstd"}
                )
            except OSError:
                self.timeouts += 1
                time.sleep(0.001)
                continue
            if answer.status == 200:
                self._settle(json.loads(answer.body)["verdicts"])
            else:
                assert answer.status == 503
                time.sleep(0.001)

    def _record(self) -> None:
        for _ in range(3):
            self.seq += 1
            event = self.make.observation(seq=self.seq)
            self.waiting[event.id] = codec.encode(event)
        bad = self.make.observation(seq=self.seq + 1, item="")
        self.waiting[bad.id] = codec.encode(bad)
        self.sent.update(self.waiting)

    def _settle(self, verdicts: list[dict[str, str]]) -> None:
        for row in verdicts:
            del self.waiting[row["id"]]
            (self.rejected if row["verdict"] == "rejected" else self.answered).add(row["id"])


def wait_for_answers(devices: list[Device], within_s: float = 10.0) -> None:
    """Return when each device has had one more answer; fail when that takes too long."""
    before = [len(device.answered) for device in devices]
    deadline = time.monotonic() + within_s
    while any(len(device.answered) == known for device, known in zip(devices, before, strict=True)):
        assert time.monotonic() < deadline
        time.sleep(0.002)


def send_until(devices: list[Device], collector: Collector, end: Callable[[], object]) -> None:
    """Let the devices send until `end` returns."""
    over = threading.Event()
    threads = [
        threading.Thread(target=device.send, args=(collector.port, over)) for device in devices
    ]
    for thread in threads:
        thread.start()
    try:
        end()
    finally:
        over.set()
        for thread in threads:
            thread.join()
