"""A collector in a process made to die, the devices that send to it, and what its death cost.

The devices live on: what was not answered is sent again to the next collector over the same store.
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
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from sanderling.contract import events as wire
from sanderling.errors import EventError
from sanderling.transport import HttpTransport
from sanderling_trainer.data import lines, store
from sanderling_trainer.data.segments import gather
from sanderling_trainer.data.store import LocalStore
from sanderling_trainer.fleet.collector import create_app, settings
from sanderling_trainer.fleet.limits import Limits
from tests.support.fakes import EventFactory
from tests.support.store_points import StorePoints

DEVICES = 3
LATE_S = 5.0


def break_store(mutant: str) -> None:
    """Break the store of this process on purpose; each breach is one that a collector could have."""
    put, flush, fsync = LocalStore.put, store.flush_path, os.fsync

    def late(act: Callable[..., None]) -> Callable[..., None]:
        return lambda *arguments: threading.Timer(LATE_S, act, arguments).start()

    if mutant == "answers before the commit":
        LocalStore.put = late(put)  # type: ignore[method-assign]
    elif mutant == "answers before the folder's flush":
        store.flush_path = late(flush)
    elif mutant == "never flushes the folder":
        store.flush_path = lambda path: None
    elif mutant == "never flushes at all":
        store.flush_path = os.fsync = lambda path: None
    elif mutant == "never flushes the file":
        os.fsync = lambda handle: None if stat.S_ISREG(os.fstat(handle).st_mode) else fsync(handle)
    assert not mutant or (LocalStore.put, store.flush_path, os.fsync) != (put, flush, fsync), mutant


def collect(root: Path, listener: socket.socket, mutant: str, points: StorePoints | None) -> None:
    """Serve on a socket until death; the points of a request are beside those of the store."""
    break_store(mutant)
    serve = create_app(LocalStore(root), "secret")
    if points is not None:
        points.watch()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def told(message: Any) -> None:
            if points is not None and message["type"] == "http.response.start":
                points.passing("before answer")
            await send(message)
            if points is not None and message["type"] == "http.response.body":
                points.passing("after answer")

        if points is not None and scope["type"] == "http":
            points.passing("request")
        await serve(scope, receive, told)

    uvicorn.Server(uvicorn.Config(app, **settings(Limits()))).run(sockets=[listener])


class Collector:
    """A collector in a child of this process; `points` are those of `StorePoints`."""

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
    """Sends small batches, each with an event that is never valid; notes what was answered, sends the rest again."""

    def __init__(self, number: int, timeout_s: float = 5.0) -> None:
        self.timeout_s = timeout_s
        self.make = EventFactory(f"{number:032x}", start=number << 32 | 1)
        self.seq, self.given_up, self.waiting = 0, 0, {}
        self.sent: dict[str, bytes] = {}
        self.answered: set[str] = set()
        self.rejected: set[str] = set()

    def send(self, port: int, over: threading.Event) -> None:
        """Send to this port until it is over."""
        transport = HttpTransport(f"http://127.0.0.1:{port}/v1", "secret", self.timeout_s)
        while not over.is_set():
            if not self.waiting:
                self._record()
            try:
                answer = transport.post(wire.pack(self.waiting.values()), {"content-encoding": "zstd"})
            except OSError:
                self.given_up += 1
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
            self.waiting[event.id] = wire.encode(event)
        bad = self.make.observation(seq=self.seq + 1, item="")
        self.waiting[bad.id] = wire.encode(bad)
        self.sent.update(self.waiting)

    def _settle(self, verdicts: list[dict[str, str]]) -> None:
        for row in verdicts:
            del self.waiting[row["id"]]
            (self.rejected if row["verdict"] == "rejected" else self.answered).add(row["id"])


@dataclass
class Toll:
    """Events answered; those of them that reading does not give, gives twice or gives altered; lost dead letters."""

    answered: int = 0
    lost: int = 0
    twice: int = 0
    altered: int = 0
    letters_lost: int = 0

    def add(self, other: Toll) -> None:
        for name in ("answered", "lost", "twice", "altered", "letters_lost"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def check(self) -> None:
        """Fail unless all is well."""
        assert (self.lost, self.twice, self.altered, self.letters_lost) == (0, 0, 0, 0)


def wait_for_answers(devices: list[Device], within_s: float = 10.0) -> None:
    """Return when each device has had an answer more, and fail when that takes too long."""
    before, deadline = [len(device.answered) for device in devices], time.monotonic() + within_s
    while any(len(device.answered) == known for device, known in zip(devices, before, strict=True)):
        assert time.monotonic() < deadline
        time.sleep(0.002)


def send_until(devices: list[Device], collector: Collector, end: Callable[[], object]) -> None:
    """Let the devices send until `end` has returned."""
    over = threading.Event()
    threads = [threading.Thread(target=device.send, args=(collector.port, over)) for device in devices]
    for thread in threads:
        thread.start()
    try:
        end()
    finally:
        over.set()
        for thread in threads:
            thread.join()


def count(root: Path, devices: list[Device]) -> Toll:
    """Read the log as the lab does, and compare it with what the devices were told."""
    place = LocalStore(root)
    try:
        found = list(gather(place))
    except EventError:  # a file without its bytes: nothing can be read until somebody removes it
        return Toll(lost=sum(len(device.answered) for device in devices))
    times = Counter(seen.event.id for seen in found)
    bodies = {seen.event.id: seen.body for seen in found}
    letters = [msgspec.json.decode(row) for name in place.names(lines.DEAD) for row in lines.unpack(place.get(name))]
    kept = {json.loads(letter["line"])["id"] for letter in letters}
    toll = Toll()
    for device in devices:
        toll.answered += len(device.answered)
        toll.lost += len(device.answered - set(times))
        toll.twice += sum(times[id] > 1 for id in device.answered)
        toll.altered += sum(bodies.get(id, device.sent[id]) != device.sent[id] for id in device.answered)
        toll.letters_lost += len(device.rejected - kept)
    return toll
