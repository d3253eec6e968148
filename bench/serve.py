"""What HTTP adds to a recommendation: the same calls in process, over loopback and a Unix socket.

As `bench recommend` asks: known users, k = 10, ε = 0.1 in a pool of 50, decisions logged, d = 64.
An engine in this process and one in each of two services, on the same bundle. Calls take turns, on
connections that are kept open. `empty` is a request that does nothing, `/healthz`: what sockets,
parser and the change of processes cost. The client writes bytes and reads the answer to its end.
Where other programs keep the processor, they decide the slowest answers, so there are two p99: of
all calls, and of those in the quietest three tenths of the run by the p99 of `empty`.

    python -m bench serve [ITEMS ...]        (default 1000 100000)
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench.serving.random_bundle import write_random_bundle
from sanderling import Engine
from sanderling.bundle.manifest import Exploration

DIM = 64
K = 10
USERS = 64
CALLS = 4000
WARM_UP = (
    500  # calls before the clock runs: users get their states, a new process its share of time
)
TURN = 20  # calls of one kind before the next kind
PAUSE_S = 0.0002
ROUNDS = 10
QUIET_ROUNDS = 3
TOKEN = "0123456789abcdef0123456789abcdef"
COMMAND = "import typer; from sanderling.cli.service import serve; typer.run(serve)"
HEADER_END = b"\r\n\r\n"


def run(arguments: list[str]) -> dict[str, Any]:
    """Return p50 and p99 in µs for each number of items, and what HTTP adds to them."""
    sizes = [int(argument) for argument in arguments] or [1000, 100_000]
    return {"load": os.getloadavg()[0], **{str(items): _case(items) for items in sizes}}


def _case(items: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_bundle(
            folder / "bundle",
            items=items,
            dim=DIM,
            state=192,
            exploration=Exploration(epsilon=0.1, pool=50),
        )
        with (
            Engine.open(folder / "bundle", folder / "state") as engine,
            _served(folder, "tcp", "--port", "0") as tcp,
            _served(folder, "unix", "--socket", str(folder / "engine.sock")) as unix,
        ):
            engine.warm_up()
            calls: dict[str, Callable[[int], Any]] = {
                "in process": lambda i: engine.recommend(f"user-{i}", K)
            }
            for kind, connection in (("loopback", tcp), ("unix", unix)):
                calls[kind] = _recommend_over(connection)
                calls[f"empty {kind}"] = _empty_over(connection)
            result = _times(calls)
    base = result["in process"]
    for kind in ("loopback", "unix"):
        result[f"{kind} adds"] = {name: result[kind][name] - base[name] for name in base}
    lines = [f"{n} {'/'.join(f'{time:.0f}' for time in v.values())}" for n, v in result.items()]
    print(f"{items:>8} items, µs p50/p99/p99 when quiet: {', '.join(lines)}", file=sys.stderr)
    return result


@contextmanager
def _served(folder: Path, name: str, *where: str) -> Iterator[socket.socket]:
    """Start a service with its own state folder; yield a connection to it."""
    command = [sys.executable, "-c", COMMAND, "--bundle", str(folder / "bundle")]
    command += ["--state", str(folder / f"state-{name}"), *where]
    environment = {**os.environ, "SANDERLING_SERVICE_TOKEN": TOKEN}
    service = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert service.stderr is not None
        said = service.stderr.readline()  # serving release 1 on ADDRESS; stop with …
        address = said.partition(" on ")[2].partition(";")[0]
        if address.startswith("unix:"):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(address.removeprefix("unix:"))
        else:
            port = int(address.rpartition(":")[2])
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with closing(connection):
            yield connection
    finally:
        service.terminate()
        service.wait(30)


def _recommend_over(connection: socket.socket) -> Callable[[int], Any]:
    requests = [
        _request("POST", "/v1/recommend", json.dumps({"user": f"user-{i}", "k": K}).encode())
        for i in range(USERS)
    ]
    return lambda i: _exchange(connection, requests[i])


def _empty_over(connection: socket.socket) -> Callable[[int], Any]:
    request = _request("GET", "/healthz", b"")
    return lambda _: _exchange(connection, request)


def _request(method: str, path: str, body: bytes) -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send a request; return the whole body of its answer."""
    connection.sendall(request)
    answer = connection.recv(65_536)
    while HEADER_END not in answer:
        answer += connection.recv(65_536)
    head, _, body = answer.partition(HEADER_END)
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"expected status 200, found {answer[:200]!r}")
    length = int(head.lower().partition(b"content-length: ")[2].split()[0])
    while len(body) < length:
        body += connection.recv(65_536)
    return body


def _times(calls: dict[str, Callable[[int], Any]]) -> dict[str, Any]:
    """Time the calls in turns, so that their differences hold on a busy machine."""
    for number in range(WARM_UP):
        for call in calls.values():
            call(number % USERS)

    spent: dict[str, list[float]] = {name: [] for name in calls}
    for first in range(0, CALLS, TURN):
        for name, call in calls.items():
            for number in range(first, first + TURN):
                start = time.perf_counter()
                call(number % USERS)
                spent[name].append((time.perf_counter() - start) * 1e6)
                time.sleep(PAUSE_S)
    rounds = {name: np.reshape(times, (ROUNDS, -1)) for name, times in spent.items()}
    empty = np.percentile(rounds["empty unix"], 99, axis=1)
    quiet = np.argsort(empty)[:QUIET_ROUNDS]
    return {
        name: {
            "p50": float(np.percentile(times, 50)),
            "p99": float(np.percentile(times, 99)),
            "p99 when quiet": float(np.percentile(times[quiet], 99)),
        }
        for name, times in rounds.items()
    }
