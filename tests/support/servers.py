"""A collector on a real socket, in a thread or a process, and stores that are slow, blocked or
broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil
import uvicorn
import zstandard

from sanderling.events import codec
from sanderling.events.schema import Event, EventVerdict, Observation
from sanderling_trainer.collector.server import create_app, uvicorn_options
from sanderling_trainer.event_log.object_store import LocalObjectStore, ObjectStore
from tests.support.fakes import EventFactory
from tests.support.waiting import wait_until

HEADERS = {"authorization": "Bearer secret", "content-encoding": "zstd", "sent-at": "1750000000000"}


def events(count: int, start: int = 1) -> list[Observation]:
    make = EventFactory(start=start)
    return [make.observation(seq=seq) for seq in range(start, start + count)]


def packed(*events: Event) -> bytes:
    return codec.pack(codec.encode(event) for event in events)


def serving(folder: Path, before: str = "") -> tuple[subprocess.Popen, int]:
    """Start a collector in a process, after running the code `before`; return the process and its
    port.
    """
    code = f"{before}\nimport sys\nfrom sanderling_trainer.collector import server as collector\n"
    code += "collector.serve(sys.argv[1], port=0, token='secret')"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    ports: list[int] = []

    def listening() -> bool:
        connections = psutil.Process(process.pid).net_connections("tcp")
        ports.extend(each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN)
        return bool(ports) or process.poll() is not None

    assert wait_until(listening, 60)
    return process, ports[0]


class SlowStore(LocalObjectStore):
    """Takes so many seconds for each file."""

    def __init__(self, root: Path, seconds: float) -> None:
        super().__init__(root)
        self.seconds = seconds

    def put(self, name: str, data: bytes) -> None:
        time.sleep(self.seconds)
        super().put(name, data)


class HeldStore(LocalObjectStore):
    """Blocks each write until `go` is set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.go = threading.Event()

    def put(self, name: str, data: bytes) -> None:
        self.go.wait(20)
        super().put(name, data)


class BrokenStore(LocalObjectStore):
    """Fails while `broken`."""

    broken = True

    def put(self, name: str, data: bytes) -> None:
        if self.broken:
            raise OSError(28, "No space left on device")
        super().put(name, data)


class PromptServer(uvicorn.Server):
    """Stops at once; uvicorn takes 0.2 s to notice the request to exit, and to act on it."""

    async def main_loop(self) -> None:
        await self.on_tick(0)
        while not self.should_exit:
            await asyncio.sleep(0.005)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(0.005)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(
                self._wait_tasks_to_complete(), self.config.timeout_graceful_shutdown
            )
        await self.lifespan.shutdown()


class Server:
    """uvicorn on a free port in a thread, over a folder or another store."""

    def __init__(
        self,
        folder: Path,
        store: ObjectStore | None = None,
        token: str | None = "secret",
        **more: Any,
    ) -> None:
        self.folder = folder
        app = create_app(store or LocalObjectStore(folder), token, **more)
        self.server = PromptServer(uvicorn.Config(app, port=0, **uvicorn_options()))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.005)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def connections(self) -> int:
        """Return the number of open connections."""
        return len(self.server.server_state.connections)

    def requests_in_progress(self) -> int:
        """Return the number of requests that are not answered yet."""
        return len(self.server.server_state.tasks)

    def post(
        self, body: bytes, headers: dict[str, str] = HEADERS, **more: str
    ) -> tuple[int, dict, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(
            "POST", "/v1/events", body, headers | {k.replace("_", "-"): v for k, v in more.items()}
        )
        answer = connection.getresponse()
        content = json.loads(answer.read())
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content

    def send(self, *events: Event) -> list[EventVerdict]:
        status, _, content = self.post(codec.pack(codec.encode(event) for event in events))
        assert status == 200, content
        return msgspec.convert(content["verdicts"], list[EventVerdict])

    def get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def files(self, folder: str) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"{folder}/*/*"))

    def dead(self) -> list[dict]:
        unpack = zstandard.ZstdDecompressor().decompress
        return [
            json.loads(row)
            for path in self.files("dead")
            for row in unpack(path.read_bytes()).splitlines()
        ]

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
