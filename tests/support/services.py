"""A service over an engine on a real socket: in a thread, or as the command in a process."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from sanderling import Engine
from sanderling.service.limits import Limits
from sanderling.service.server import listen_on_port, make_server
from tests.support.waiting import wait_until

TOKEN = "0123456789abcdef"
COMMAND = "import typer; from sanderling.cli.service import serve; typer.run(serve)"


class Answered:
    """An answer: its status, its headers by lower name, and its content."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.text = response.read().decode()

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> str:
        return self.json["error"]


class Client:
    """Calls a service, on a port or a Unix socket, each time over a connection of its own."""

    def __init__(self, address: int | str, token: str | None = None) -> None:
        self.address = address
        self.token = token

    def connect(self) -> socket.socket:
        if isinstance(self.address, int):
            return socket.create_connection(("127.0.0.1", self.address), 10)
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10)
        connection.connect(self.address)
        return connection

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answered:
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = self.connect()
        if self.token is not None:
            headers.setdefault("authorization", f"Bearer {self.token}")
        connection.request(method, path, body, headers)
        answer = Answered(connection.getresponse())
        connection.close()
        return answer

    def post(self, name: str, **arguments: Any) -> Answered:
        return self.request("POST", f"/v1/{name}", json.dumps(arguments))

    def get(self, path: str) -> Answered:
        return self.request("GET", path)

    def send(self, sent: bytes) -> bytes:
        """Send bytes as they are, and return all that comes until the service closes."""
        with self.connect() as connection:
            connection.sendall(sent)
            return read_all(connection)


class RunningService(Client):
    """A service in a thread on a free port; its caller closes the engine."""

    def __init__(
        self, engine: Engine, token: str | None = None, limits: Limits | None = None
    ) -> None:
        listener = listen_on_port(0)
        super().__init__(listener.getsockname()[1], token)
        self.server = make_server(engine, token, limits or Limits())
        self.thread = threading.Thread(target=self.server.run, args=([listener],), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)


def started(
    bundle: Path, folder: Path, *more: str, before: str = ""
) -> tuple[subprocess.Popen[str], Client]:
    """Start the command in a process, after running the code `before`, with state and socket in a
    folder; wait until it serves.
    """
    path = folder / "engine.sock"
    arguments = ["--bundle", str(bundle), "--state", str(folder / "state"), "--socket", str(path)]
    process = subprocess.Popen(
        [sys.executable, "-c", before + COMMAND, *arguments, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "SANDERLING_SERVICE_TOKEN": ""},
        text=True,
    )
    assert wait_until(lambda: path.exists() or process.poll() is not None, 60)
    return process, Client(str(path))


def read_all(connection: socket.socket) -> bytes:
    """Return what comes on a connection until its other end closes it."""
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)
