"""The limits of the collector: what it refuses, with which status, and what happens then."""

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
        (b"garbage, not read", {"authorization": "Basic x"}, 401),
        (BATCH, {"content_encoding": "gzip"}, 400),
        (BATCH, {"content_encoding": "br"}, 415),
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
def test_an_invalid_batch_is_refused(server, body, headers, expected):
    """A wrong token, encoding, size or body gets the right status with a reason, and nothing is
    stored.
    """
    status, _, content = server.post(body, **headers)
    assert status == expected
    assert list(content) == ["error"]
    assert "expected" in content["error"]
    assert server.files("*") == []


def test_a_streamed_body_is_capped_without_a_declared_length(server):
    """A chunked body, which declares no length, is refused at the limit."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    chunks = (b"x" * 2**16 for _ in range(2 * LIMITS.body_bytes // 2**16))
    try:
        connection.request("POST", "/v1/events", chunks, HEADERS, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server closed the connection in the middle of the body, which is right too
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
    """The soft limit is raised as far as the hard limit allows, and never lowered."""
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: limits.append(pair))
    collector.raise_file_limit()
    assert limits == ([(raised, hard)] if raised else [])


def test_an_empty_batch_is_answered(server):
    """A batch without events gets no verdicts, and no file is written."""
    assert server.send() == []
    assert server.files("*") == []


@pytest.mark.parametrize("value", ["", "soon", "-", "-50000", "--5", "9" * 14, "9" * 30, "²"])
def test_an_invalid_sent_at_is_ignored(server, value):
    """With an invalid header events are stored without a correction of the clock."""
    status, _, _ = server.post(
        BATCH, HEADERS | {"sent-at": value.encode("latin-1", "ignore").decode("latin-1")}
    )
    assert status == 200
    assert list(read_segments(str(server.folder)).time.values()) == [1_750_000_000_000]


def test_a_clock_that_was_never_set_is_corrected_too(server):
    """An event made ten seconds before sending, by a clock of 1970, gets the time ten seconds
    before its receipt.
    """
    [event] = events(1)
    early = msgspec.structs.replace(event, clock=wire.ClockReading(50_000, 5_000, "b" * 32))
    before = time.time_ns() // 1_000_000
    assert server.post(packed(early), HEADERS | {"sent-at": "60000"})[0] == 200
    sent = read_segments(str(server.folder)).time[early.id] + 10_000
    assert before <= sent <= time.time_ns() // 1_000_000


def test_overload_is_refused_with_a_time_to_wait(tmp_path):
    """Requests beyond the limit get 503 with Retry-After, and every event that was answered `ok` is
    stored.
    """
    store = HeldStore(tmp_path)
    server = Server(tmp_path, store, limits=Limits(requests=3))
    with ThreadPoolExecutor(20) as pool:
        posts = [pool.submit(server.post, packed(event)) for event in events(20)]
        assert wait_until(lambda: sum(post.done() for post in posts) == 17)
        store.go.set()
    answers = [post.result() for post in posts]
    accepted = [content["verdicts"][0]["id"] for status, _, content in answers if status == 200]
    refused = [headers["retry-after"] for status, headers, _ in answers if status == 503]
    assert (len(accepted), len(refused)) == (3, 17)
    log = read_segments(str(tmp_path))
    stored = [event.id for events in log.events.values() for event in events]
    assert sorted(accepted) == sorted(stored)
    assert server.send(*events(1, start=100))[0].verdict == "ok"
    server.stop()


def test_too_many_waiting_bytes_are_refused(tmp_path):
    """A batch is refused with Retry-After when more bytes would wait than the limit allows."""
    server = Server(tmp_path, limits=Limits(waiting_bytes=10))
    status, headers, _ = server.post(BATCH)
    assert (status, headers["retry-after"]) == (503, "5")
    server.stop()


def test_a_slow_body_times_out(tmp_path):
    """A client that never finishes its body gets 408."""
    server = Server(tmp_path, limits=Limits(body_s=0.1))
    with begin_request(server, None) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
    server.stop()


def test_a_slow_body_counts_as_a_request(tmp_path):
    """While as many bodies as allowed are being received, further requests get 503 with
    Retry-After.
    """
    server = Server(tmp_path, limits=Limits(requests=1))
    with begin_request(server, 1) as connection:
        status, headers, _ = server.post(BATCH)
        assert (status, headers["retry-after"]) == (503, "5")
        assert not select.select([connection], [], [], 0.2)[0]
    server.stop()


def begin_request(server: Server, in_progress: int | None) -> socket.socket:
    """Send a head and the first bytes of a body; return the connection when so many requests are in
    progress.
    """
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    head = "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    connection.sendall(head.encode() + b"\r\nsome")
    assert in_progress is None or wait_until(
        lambda: f"requests_in_progress {in_progress}.0" in server.get("/metrics")[1]
    )
    return connection


def test_the_rate_limit_holds_for_each_install(tmp_path):
    """An install beyond its burst gets 429 with the time to wait, and nothing is stored; others are
    served.
    """
    server = Server(tmp_path, limits=Limits(events_s=10, burst=20), clock=FakeClock())
    make = EventFactory()
    assert server.post(packed(*(make.observation(seq=seq) for seq in range(1, 51))))[0] == 200
    status, headers, content = server.post(packed(make.observation(seq=51)))
    assert (status, headers["retry-after"]) == (429, "3")
    assert "10 events/s" in content["error"]
    assert server.post(packed(EventFactory("b" * 32, start=1000).observation(seq=1)))[0] == 200
    assert read_segments(str(tmp_path)).received == 51
    server.stop()


def test_a_debt_is_paid_off_with_time():
    """A batch beyond the burst passes whole; the next one is refused until the debt is paid off."""
    clock = FakeClock()
    rate = RateLimit(clock, 10, 20, "events")
    rate.charge({"a": 50})
    with pytest.raises(RefusalError) as refused:
        rate.charge({"a": 1})
    assert (refused.value.status, refused.value.retry_after_s) == (429, 3.0)
    clock.advance(3)
    rate.charge({"a": 1})


def test_batches_that_are_not_stored_are_not_counted(tmp_path):
    """While the store fails each attempt gets 503, and the burst passes once the store works."""
    store = BrokenStore(tmp_path)
    server = Server(tmp_path, store, limits=Limits(events_s=10, burst=20), clock=FakeClock())
    body = packed(*events(50))
    assert [server.post(body)[0] for _ in range(5)] == [503] * 5
    store.broken = False
    assert [server.post(packed(*events(50, start=start)))[0] for start in (1, 100)] == [200, 429]
    server.stop()


def test_a_refused_batch_is_charged_to_no_install():
    """If one install of a batch is in debt the batch is refused, and the others are not charged."""
    rate = RateLimit(FakeClock(), 10, 20, "events")
    rate.charge({"b": 50})
    with pytest.raises(RefusalError):
        rate.charge({"a": 50, "b": 1})
    rate.charge({"a": 1})
