"""What the collector refuses, and that refusing costs it little."""

from __future__ import annotations

import http.client
import resource
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
import zstandard

from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling_trainer.collector import server as collector
from sanderling_trainer.collector.limits import Limits, RefusalError
from sanderling_trainer.collector.rate_limit import RateLimit
from sanderling_trainer.event_log.reader import read_segments
from tests.support.fakes import EventFactory, FakeClock
from tests.support.servers import HEADERS, BrokenStore, HeldStore, Server, events, packed
from tests.support.waiting import wait_until

pytestmark = pytest.mark.lab

LIMITS = Limits()


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    server = Server(tmp_path / "store")
    yield server
    server.stop()


BATCH = codec.pack([codec.encode(event) for event in events(1)])


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (BATCH, {"authorization": "Bearer wrong"}, 401),
        (BATCH, {"authorization": ""}, 401),
        (BATCH, {"authorization": "Bearer sécret"}, 401),
        (b"garbage, but nobody looks", {"authorization": "Basic x"}, 401),
        (BATCH, {"content_encoding": "gzip"}, 415),
        (BATCH, {"content_encoding": "zstd, zstd"}, 415),
        (b"x" * (LIMITS.body_bytes + 1), {}, 413),
        (zstandard.ZstdCompressor(level=1).compress(bytes(2**28)), {}, 413),
        (b"garbage", {}, 400),
        (b"", {}, 400),
        (BATCH[:-2], {}, 400),
        (BATCH + BATCH, {}, 400),
        (codec.pack([b"{}"]), {}, 400),
        (codec.pack([b"[" * 60_000]), {}, 400),
        (codec.pack([b'{"id":1}']), {}, 400),
        (codec.pack([b"1"] * (wire.MAX_BATCH_EVENTS + 1)), {}, 413),
    ],
)
def test_what_is_not_a_batch_is_refused_whole(server, body, headers, expected):
    """Wrong token, encoding, size or bytes: the right status with a reason, and nothing is stored."""
    status, _, content = server.post(body, **headers)
    assert status == expected
    assert msgspec.convert(content, wire.Refusal), (
        "the device takes no other words for the collector's"
    )
    assert server.files("*") == []


def test_a_streamed_body_is_capped_without_a_declared_length(server):
    """A chunked body is cut off at the cap though it never said how long it would be."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    chunks = (b"x" * 2**16 for _ in range(2 * LIMITS.body_bytes // 2**16))
    try:
        connection.request("POST", "/v1/events", chunks, HEADERS, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server hung up in the middle of the body, which is as good
    assert server.send(*events(1))[0].verdict == "ok"


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 20_000, 16_384),
        (1024, 4096, 4096),
        (256, 256, None),
        (1024, -1, 16_384),
        (-1, -1, None),
    ],
)
def test_the_process_may_open_more_files(monkeypatch, soft, hard, raised):
    """The soft limit is raised as far as the hard one allows, and never lowered."""
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: given.append(pair))
    collector._raise_file_limit()
    assert given == ([(raised, hard)] if raised else [])


def test_an_empty_batch_is_answered(server):
    """No events, no verdicts, no file."""
    assert server.send() == []
    assert server.files("*") == []


@pytest.mark.parametrize("value", ["", "soon", "-", "-50000", "--5", "9" * 14, "9" * 30, "²"])
def test_an_absurd_sent_at_is_as_good_as_none(server, value):
    """Events are stored without a correction of the clock when the header makes no sense."""
    status, _, _ = server.post(
        BATCH, HEADERS | {"sent-at": value.encode("latin-1", "ignore").decode("latin-1")}
    )
    assert status == 200
    assert list(read_segments(str(server.folder)).time.values()) == [1_750_000_000_000]


def test_a_clock_that_was_never_set_is_corrected_too(server):
    """What was sent soon after 1970 began, and made ten seconds before, is read as made ten seconds before it came."""
    [event] = events(1)
    early = msgspec.structs.replace(event, clock=wire.Clock(50_000, 5_000, "b" * 32))
    before = time.time_ns() // 1_000_000
    assert server.post(packed(early), HEADERS | {"sent-at": "60000"})[0] == 200
    found = read_segments(str(server.folder)).time[early.id] + 10_000
    assert before <= found <= time.time_ns() // 1_000_000


def test_overload_is_refused_with_a_time_to_wait(tmp_path):
    """Beyond the bound the answer is 503 with Retry-After, never a lost event: what was answered ok is stored (P25)."""
    store = HeldStore(tmp_path)
    server = Server(tmp_path, store, limits=Limits(requests=3))
    with ThreadPoolExecutor(20) as pool:
        posts = [pool.submit(server.post, packed(event)) for event in events(20)]
        assert wait_until(lambda: sum(post.done() for post in posts) == 17)
        store.go.set()
    answers = [post.result() for post in posts]
    taken = [content["verdicts"][0]["id"] for status, _, content in answers if status == 200]
    refused = [headers["retry-after"] for status, headers, _ in answers if status == 503]
    assert (len(taken), len(refused)) == (3, 17)
    stored = [event.id for found in read_segments(str(tmp_path)).events.values() for event in found]
    assert sorted(taken) == sorted(stored)
    assert server.send(*events(1, start=100))[0].verdict == "ok"
    server.stop()


def test_too_much_waiting_is_refused(tmp_path):
    """When more bytes wait than the bound allows, the batch is refused with Retry-After."""
    server = Server(tmp_path, limits=Limits(waiting_bytes=10))
    status, headers, _ = server.post(BATCH)
    assert (status, headers["retry-after"]) == (503, "5")
    server.stop()


def test_a_slow_body_is_given_up(tmp_path):
    """A client that never finishes its body gets 408 instead of a place for ever."""
    server = Server(tmp_path, limits=Limits(body_s=0.1))
    with begun(server, None) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
    server.stop()


def test_a_slow_body_keeps_its_place(tmp_path):
    """Where all places are taken by bodies on their way, the next request is refused: 503 with Retry-After."""
    server = Server(tmp_path, limits=Limits(requests=1))
    with begun(server, 1) as connection:
        status, headers, _ = server.post(BATCH)
        assert (status, headers["retry-after"]) == (503, "5")
        assert not select.select([connection], [], [], 0.2)[0]
    server.stop()


def begun(server: Server, under_way: int | None) -> socket.socket:
    """Send a head and the first bytes of a body; return the connection, when so many requests are under way."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    head = "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    connection.sendall(head.encode() + b"\r\nsome")
    assert under_way is None or wait_until(
        lambda: f"requests_under_way {under_way}.0" in server.get("/metrics")[1]
    )
    return connection


def test_an_install_that_sends_too_much_waits_and_others_do_not(tmp_path):
    """Beyond burst and rate an install gets 429 with the time to wait, nothing is stored; another install goes on."""
    server = Server(tmp_path, limits=Limits(events_s=10, burst=20), clock=FakeClock())
    make = EventFactory()
    assert server.post(packed(*(make.observation(seq=seq) for seq in range(1, 51))))[0] == 200
    status, headers, content = server.post(packed(make.observation(seq=51)))
    assert (status, headers["retry-after"]) == (429, "3")
    assert "10 events/s" in content["error"]
    assert server.post(packed(EventFactory("b" * 32, start=1000).observation(seq=1)))[0] == 200
    assert read_segments(str(tmp_path)).received == 51
    server.stop()


def test_the_rate_pays_its_debt_with_time():
    """A burst passes whole, the debt is told as seconds to wait, and after these the next batch passes."""
    clock = FakeClock()
    rate = RateLimit(Limits(events_s=10, burst=20), clock)
    rate.take({"a": 50})
    with pytest.raises(RefusalError) as refused:
        rate.take({"a": 1})
    assert (refused.value.status, refused.value.wait_s) == (429, 3.0)
    clock.advance(3)
    rate.take({"a": 1})


def test_what_is_not_stored_costs_nothing_of_the_rate(tmp_path):
    """While the store fails a device is told so each time, and its whole burst passes once the store works again."""
    store = BrokenStore(tmp_path)
    server = Server(tmp_path, store, limits=Limits(events_s=10, burst=20), clock=FakeClock())
    body = packed(*events(50))
    assert [server.post(body)[0] for _ in range(5)] == [503] * 5
    store.broken = False
    assert [server.post(packed(*events(50, start=start)))[0] for start in (1, 100)] == [200, 429]
    server.stop()


def test_a_refused_install_costs_the_others_of_its_batch_nothing():
    """Where one install of a batch is in debt the batch is refused, and the others have booked nothing."""
    rate = RateLimit(Limits(events_s=10, burst=20), FakeClock())
    rate.take({"b": 50})
    with pytest.raises(RefusalError):
        rate.take({"a": 50, "b": 1})
    rate.take({"a": 1})
