"""Ten thousand silent connections, slow and endless heads (bad input 98): devices are served, memory has a bound."""

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
from sanderling_trainer.fleet.connections import PIPELINED
from sanderling_trainer.fleet.limits import Limits
from tests.support.servers import HEADERS, Server, events, packed, serving
from tests.support.waiting import wait_until

pytestmark = pytest.mark.lab

MIB = 2**20
CROWDS = 10_000, 5_000
SPARE = 500
KEEP_ALIVE_S = 5  # what uvicorn gives a connection that is silent after an answer
PLAIN = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
SLOW = b"GET /healthz HTTP/1.1\r\nx: "
CHUNKED = b"POST /v1/events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"


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


def flooded(connection: socket.socket, before: bytes, more: bytes) -> int:
    """Send without an end until the server ends the connection, or 32 MiB; return how many bytes were sent."""
    sent = 0
    with suppress(OSError):
        connection.sendall(before)
        while sent < 32 * MIB:
            connection.sendall(more)
            sent += len(more)
    return sent


def answers(connection: socket.socket, most: int) -> int:
    """Return how many answers came till the connection was ended, or so many."""
    found = b""
    with suppress(OSError):
        while found.count(b"HTTP/1.1 ") < most and (more := connection.recv(100_000)):
            found += more
    return found.count(b"HTTP/1.1 ")


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


ENDLESS = {
    "address": b"GET /",
    "header": b"GET /healthz HTTP/1.1\r\nx: ",
    "name of a header": b"GET /healthz HTTP/1.1\r\n",
    "trailer": CHUNKED + b"0\r\nx: ",
    "chunk's extension": CHUNKED + b"1;x=",
}


@pytest.mark.parametrize("before", ENDLESS.values(), ids=ENDLESS)
def test_what_never_ends_is_ended(tmp_path, stack, before):
    """Who goes on and on outside a body is cut off, long before the time for a head is over."""
    server = served(tmp_path, stack)
    connection = connect(server.port, stack)
    assert flooded(connection, before, b"a" * 2**16) < 32 * MIB
    assert server.send(*events(1))[0].verdict == "ok"


@pytest.mark.parametrize("before", [b"GET / HTTP/1.1\r\n", CHUNKED + b"0\r\n"], ids=["head", "trailers"])
def test_many_small_headers_are_ended_sooner(tmp_path, stack, before):
    """Headers of a few bytes cost more memory than they have bytes, and are counted so."""
    server = served(tmp_path, stack)
    connection = connect(server.port, stack)
    connection.sendall(before + b"a:b\r\n" * 1000)
    assert ended(connection, KEEP_ALIVE_S - 1)


def test_a_large_head_is_taken(tmp_path, stack):
    """A head of nearly all that it may have is answered, in whatever pieces it comes."""
    connection = connect(served(tmp_path, stack).port, stack)
    head = PLAIN[:-2] + b"x: " + b"a" * (Limits().head_bytes - 500) + b"\r\n\r\n"
    for start in range(0, len(head), 10_000):
        connection.sendall(head[start : start + 10_000])
    assert connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_too_large_a_head_is_told_why(tmp_path, stack):
    """The first head of a connection that is one byte too long gets 431."""
    connection = connect(served(tmp_path, stack).port, stack)
    connection.sendall(b"GET /".ljust(Limits().head_bytes + 1, b"a"))
    assert connection.recv(1000).startswith(b"HTTP/1.1 431")


def test_bodies_and_the_heads_between_are_not_counted_together(tmp_path, stack):
    """Over one connection, large bodies in small chunks and head after head come to far more than a head may have."""
    server = served(tmp_path, stack, head_bytes=1000)
    device = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)))
    for start in range(1, 2000, 200):
        body = packed(*events(200, start=start))
        chunks = [body[at : at + 50] for at in range(0, len(body), 50)]
        device.request("POST", "/v1/events", iter(chunks), HEADERS, encode_chunked=True)
        answer = device.getresponse()
        assert (answer.status, len(answer.read()) > 0) == (200, True)


def test_requests_that_come_long_before_their_turn_are_ended(tmp_path, stack):
    """A few requests may wait behind one that is under way; hundreds end the connection."""
    server = served(tmp_path, stack)
    few, many = connect(server.port, stack), connect(server.port, stack)
    few.sendall(CHUNKED + b"0\r\n\r\n" + 10 * PLAIN)
    assert answers(few, 11) == 11
    many.sendall(CHUNKED + b"0\r\n\r\n" + 500 * PLAIN)
    assert answers(many, 501) < 501


def test_a_client_that_does_not_read_is_ended(tmp_path, stack):
    """Who asks and asks and takes no answer holds a connection no longer than one who says nothing."""
    server = served(tmp_path, stack)
    server.server.servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    connection = stack.enter_context(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    assert accepted(server, 1)
    patience(server, 0.3)
    connection.sendall(PIPELINED * PLAIN.replace(b"healthz", b"openapi.json"))
    assert accepted(server, 0)


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
