"""Ten thousand silent connections and slow heads (bad input 98): honest devices are served, and memory has a bound."""

from __future__ import annotations

import http.client
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import psutil
import pytest

from sanderling.transport import HttpTransport
from sanderling_trainer.fleet import connections
from sanderling_trainer.fleet.limits import Limits
from tests.servers import HEADERS, Server, events, packed, serving
from tests.waiting import wait_until

pytestmark = pytest.mark.lab

MIB = 2**20
CROWDS = 10_000, 5_000
SPARE = 500
KEEP_ALIVE_S = 5  # what uvicorn gives a connection that is silent after an answer
SLOW = b"GET /healthz HTTP/1.1\r\nx: "


def connect(port: int, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))


def ended(connection: socket.socket, within_s: float) -> bool:
    """Say whether the server ended a connection in time, after whatever was still to be read."""
    connection.settimeout(within_s)
    try:
        while connection.recv(1000):
            pass
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def served(tmp_path, stack: ExitStack, **limits) -> Server:
    server = Server(tmp_path, limits=Limits(**limits))
    stack.callback(server.stop)
    return server


def patience(server: Server, seconds: float) -> None:
    """Give heads so long from now on; timers that run already stay as they are."""
    waiting(server)._patience_s = seconds


def waiting(server: Server) -> connections.Waiting:
    return server.server.config.http_protocol_class.waiting


def seen(server: Server) -> set[connections.WatchedProtocol]:
    """Return a set that gets each connection that the server accepts from now on."""
    found, add = set(), waiting(server).add
    waiting(server).add = lambda connection: (found.add(connection), add(connection))
    return found


def accepted(server: Server, count: int) -> bool:
    return wait_until(lambda: len(server.server.server_state.connections) == count)


def dribble(connections: list[socket.socket], text: bytes, pause_s: float = 0.05) -> int:
    """Send a text to each, byte by byte, while any takes it; return how many connections took the last byte."""
    open_ones = set(connections)
    for byte in text:
        for connection in list(open_ones):
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                open_ones.discard(connection)
        if not open_ones:
            break
        time.sleep(pause_s)
    return len(open_ones)


@pytest.mark.parametrize("before", [b"", b"POST /v1/ev"])
def test_a_connection_without_a_whole_head_is_ended(tmp_path, stack, before):
    """Who says nothing, or half a head, is cut off after the time for a head and not before."""
    server = served(tmp_path, stack, head_s=0.3)
    began = time.monotonic()
    connection = connect(server.port, stack)
    with suppress(OSError):
        connection.sendall(before)
    assert ended(connection, 10)
    assert time.monotonic() - began >= 0.3


def test_a_connection_that_is_silent_after_an_answer_is_ended(tmp_path, stack):
    """Who was answered and says nothing more is cut off after the time for a head, sooner than uvicorn would."""
    server = served(tmp_path, stack)
    device = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)))
    device.connect()
    assert accepted(server, 1)
    patience(server, 0.3)
    began = time.monotonic()
    device.request("GET", "/healthz")
    assert device.getresponse().read() == b'{"status":"ok"}'
    assert ended(device.sock, KEEP_ALIVE_S - 1)
    assert time.monotonic() - began >= 0.3


def test_slow_heads_are_ended_though_each_byte_comes_in_time(tmp_path, stack):
    """Fifty clients that send a head byte by byte are cut off in its middle, and a device beside them is served."""
    server = served(tmp_path, stack)
    patience(server, 0.5)
    known = seen(server)
    slow = [connect(server.port, stack) for _ in range(50)]
    assert wait_until(lambda: len(known) == 50)
    patience(server, 60)
    assert server.send(*events(1))[0].verdict == "ok"
    assert dribble(slow, SLOW + b"y" * 400) == 0
    assert server.send(*events(1, start=7))[0].verdict == "ok"


def test_without_a_time_for_heads_slow_ones_stay(tmp_path, stack, monkeypatch):
    """The same clients on uvicorn's own protocol are there to the last byte: what the time is for."""
    monkeypatch.setattr(connections.Waiting, "add", lambda self, connection: None)
    server = served(tmp_path, stack, head_s=0.5)
    slow = [connect(server.port, stack) for _ in range(5)]
    assert dribble(slow, SLOW) == 5


def test_a_refused_body_that_never_ends_is_ended(tmp_path, stack):
    """Who gets 401 and goes on with its body, byte by byte, is cut off as well."""
    server = served(tmp_path, stack)
    connection = connect(server.port, stack)
    assert accepted(server, 1)
    patience(server, 0.3)
    connection.sendall(b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
    assert connection.recv(1000).startswith(b"HTTP/1.1 401")
    assert dribble([connection], b"x" * 400) == 0


def test_a_request_may_take_longer_than_a_head(tmp_path, stack):
    """A body that comes slowly, but within its own time, is not cut off by the time for heads: no timer runs."""
    server = served(tmp_path, stack)
    body = packed(*events(1))
    connection = connect(server.port, stack)
    assert wait_until(lambda: len(waiting(server)._timers) == 1)
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    connection.sendall(f"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode())
    assert wait_until(lambda: not waiting(server)._timers)
    connection.sendall(body)
    assert connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_the_oldest_silent_connection_makes_room(tmp_path, stack):
    """Beyond the bound the connection that has been silent longest is ended, and one that had an answer late is not."""
    server = served(tmp_path, stack, connections=20)
    device = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    device.request("GET", "/healthz")
    device.getresponse().read()
    silent = [connect(server.port, stack) for _ in range(10)]
    assert accepted(server, 11)
    device.request("GET", "/healthz")
    assert device.getresponse().read() == b'{"status":"ok"}'
    more = [connect(server.port, stack) for _ in range(15)]
    device.request("GET", "/healthz")
    assert device.getresponse().read() == b'{"status":"ok"}'
    assert all(ended(connection, 10) for connection in silent[:6])
    assert not any(ended(connection, 0.05) for connection in [*silent[6:], *more])
    device.close()


@pytest.mark.parametrize(("soft", "hard", "most", "raised"), [(1024, 20_000, 10_000, 20_000), (256, 256, 128, None)])
def test_half_of_the_files_is_left_for_others(monkeypatch, soft, hard, most, raised):
    """The process may open more files where that is allowed; where it is not, fewer connections may be silent."""
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: given.append(pair))
    assert connections.protocol(Limits()).waiting._most == most
    assert given == ([(raised, hard)] if raised else [])


@pytest.mark.soak
def test_ten_thousand_silent_connections_and_more(tmp_path, stack, capsys):
    """Beside 10,000 silent connections, and 5,000 more, a device is served within a second, and memory is bounded."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < sum(CROWDS) + SPARE:
        pytest.fail(f"expected {sum(CROWDS) + SPARE} files that a process may open, found {files}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    process, port = serving(tmp_path)
    stack.callback(process.wait, 20)
    stack.callback(process.terminate)
    watched, slowest = psutil.Process(process.pid), [honest(port, 1)]
    before, grown, opened = watched.memory_info().rss, [], []
    for turn, crowd in enumerate(CROWDS, 1):
        for _ in range(crowd):
            connect(port, stack)
        slowest.append(honest(port, 1000 * turn))
        grown.append((watched.memory_info().rss - before) / MIB)
        opened.append(watched.num_fds())
    with capsys.disabled():
        print(f"\nfiles {opened}, grown MiB {grown}, slowest of 20 posts before and beside in s {slowest}")
    assert max(slowest) <= 1
    assert max(opened) <= Limits().connections + SPARE
    assert max(grown) <= 256


def honest(port: int, start: int) -> float:
    """Post twenty batches, each over a new connection; return the longest time until an answer."""
    longest = 0.0
    for number in range(20):
        transport = HttpTransport(f"http://127.0.0.1:{port}/v1", "secret", timeout_s=10)
        began = time.perf_counter()
        answer = transport.post(packed(*events(1, start=start + number)), {"content-encoding": "zstd"})
        longest = max(longest, time.perf_counter() - began)
        assert answer.status == 200
    return longest
