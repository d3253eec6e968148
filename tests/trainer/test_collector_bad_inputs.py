"""Decompression bombs, malformed requests and absurd events get the right answer, cheaply."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import msgspec
import psutil
import pytest

from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.upload.transport import HttpTransport
from sanderling_trainer.event_log.examples import examples_of
from sanderling_trainer.event_log.reader import read_segments
from tests.support.fakes import EventFactory
from tests.support.servers import HEADERS, Server, events, packed, serving
from tests.support.waiting import wait_until

pytestmark = pytest.mark.lab

GOOD = codec.encode(events(1)[0])
MIB = 2**20


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    server = Server(tmp_path / "store")
    yield server
    server.stop()


def bomb(size: int, *, declared: bool = False, window_log: int = 23) -> bytes:
    """Return a valid zstd frame of zeros, 4 bytes for each 128 KiB (RFC 8878, section 3.1)."""
    block, count = 2**17, size // 2**17
    header = b"\x28\xb5\x2f\xfd" + bytes([0xC0 if declared else 0x00, (window_log - 10) << 3])
    header += size.to_bytes(8, "little") if declared else b""
    blocks = [
        ((number == count - 1) | 1 << 1 | block << 3).to_bytes(3, "little") + b"\0"
        for number in range(count)
    ]
    return header + b"".join(blocks)


def refused(server: Server, event: bytes) -> bool:
    """Send one event; return whether it was rejected, or refused with its batch, and not stored."""
    status, _, content = server.post(codec.pack([event]))
    verdicts = [row["verdict"] for row in content.get("verdicts", [])]
    return (status, verdicts) in [(400, []), (200, ["rejected"])] and server.files("segments") == []


BOMBS = {
    "10 GiB, size unknown": bomb(10 * 2**30),
    "10 GiB, size declared": bomb(10 * 2**30, declared=True),
    "window of 128 MiB": bomb(2**30, window_log=27),
    "many frames": bomb(4 * MIB) * 400,
    "a frame in a frame": codec.pack([bomb(10 * 2**30)] * 6),
}


def test_bombs_take_little_time_and_memory(tmp_path):
    """Each bomb takes at most 200 ms of CPU, and the process grows by less than 32 MiB in all."""
    process, port = serving(tmp_path)
    watched = psutil.Process(process.pid)
    transport = HttpTransport(f"http://127.0.0.1:{port}/v1", "secret")
    assert transport.post(packed(*events(1)), {"content-encoding": "zstd"}).status == 200
    rss_before = watched.memory_info().rss
    for name, body in BOMBS.items():
        started = sum(watched.cpu_times()[:2])
        answer = transport.post(body, {"content-encoding": "zstd"})
        spent = sum(watched.cpu_times()[:2]) - started
        assert answer.status in (400, 413), name
        assert spent <= 0.2, f"{name}: {spent:.3f} s"
    grown = watched.memory_info().rss - rss_before
    process.terminate()
    process.wait(15)
    assert grown <= 32 * MIB


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("content-encoding: zstd\r\ncontent-length: -1", 400),
        ("content-encoding: zstd\r\ncontent-length: 1\r\ncontent-length: 2", 400),
        ("content-encoding: zstd\r\ncontent-length: soon", 400),
        ("content-encoding: zstd\r\ncontent-length: 99999999999", 413),
        ("content-encoding: zstd\r\ntransfer-encoding: chunked\r\ncontent-length: 3", 400),
        ("content-encoding: zstd\r\ncontent-encoding: zstd\r\ncontent-length: 0", 415),
        ("content-encoding: gzip, gzip\r\ncontent-length: 0", 415),
        ("content-encoding: zstd\r\ncontent-length: 0\r\nx: " + "y" * 2**15, 400),
        ("content-encoding: zstd\r\ncontent-length: 0\r\nx\ny: z", 400),
    ],
)
def test_a_malformed_head_is_refused(server, head, status):
    """Invalid lengths, encodings and header lines are refused, and the server continues."""
    request = (
        f"POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer secret\r\n{head}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(request.encode())
        assert connection.recv(100).startswith(f"HTTP/1.1 {status}".encode())
    assert server.send(*events(1, start=700))[0].verdict == "ok"


def test_idle_connections_do_not_keep_others_out(server):
    """A device is served while 400 idle connections are open."""
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(400)]
    assert wait_until(lambda: server.connections() == 400)
    assert server.send(*events(1))[0].verdict == "ok"
    assert server.connections() >= 400
    for connection in idle:
        connection.close()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"item":"red"', b'"item":true'),
        (b'"item":"red"', b'"item":""'),
        (b'"item":"red"', b'"item":"' + b"x" * 513 + b'"'),
        (b'"seq":1', b'"seq":0'),
        (b'"seq":1', b'"seq":1.5'),
        (b'"seq":1', b'"seq":NaN'),
        (b'"seq":1', b'"seq":1' + b"0" * 5000),
        (b'"seq":1', b'"more":1,"seq":1'),
        (b'"seq":1', b'"seq":' + b"[" * 20_000),
        (b'"install":"a', b'"install":"A'),
        (b'"mono":5000', b'"mono":-1'),
        (b'"wall":1750000000000', b'"wall":"2025-06-15T15:06:40+14:00"'),
        (GOOD[GOOD.index(b'"id":"') + 6 :][:32], b""),
        (GOOD[GOOD.index(b'"id":"') + 6 :][:32], b"x" * 32),
        (GOOD[GOOD.index(b'"id":"') + 6 :][:32], b"0" * 33),
    ],
)
def test_an_absurd_field_is_rejected_or_refused_with_its_batch(server, old, new):
    """A value of the wrong type or range is rejected with a reason, and not stored in a segment."""
    bad = GOOD.replace(old, new, 1)
    assert bad != GOOD
    assert refused(server, bad)


@pytest.mark.parametrize(
    "value", [b"0", b"-0.0", b"1.1", b"NaN", b"Infinity", b'"0.5"', b"true", b"1e-400"]
)
def test_an_impossible_propensity_is_rejected(server, value):
    """A probability outside (0, 1] is not stored in a segment."""
    bad = codec.encode(EventFactory().decision(seq=1)).replace(
        b'"marginal":0.9', b'"marginal":' + value
    )
    assert refused(server, bad)


def test_a_long_event_is_refused_and_its_neighbours_are_stored(server):
    """An event of more than 256 KiB is refused with its batch, so that the device halves it; so is
    one of 10 MB.
    """
    long = GOOD.replace(b'"red"', b'"' + b"x" * wire.MAX_LINE + b'"')
    assert server.post(codec.pack([long]))[0] == 400
    assert (
        server.post(codec.pack([GOOD.replace(b'"red"', b'"' + b"x" * 10 * MIB + b'"')]))[0] == 413
    )
    assert server.post(codec.pack([b"1"] * 1_000_000))[0] == 413
    assert server.post(codec.pack([GOOD]))[0] == 200


def test_too_many_installs_in_one_batch_are_refused(server):
    """A batch of more than 16 installs is refused before their tombstones are looked up."""
    many = [
        EventFactory(f"{number:032x}", start=100 * number).observation(seq=1)
        for number in range(1, 18)
    ]
    assert server.post(packed(*many))[0] == 413
    assert server.post(packed(*many[:16]))[0] == 200


def test_an_id_of_another_device_is_a_conflict(server):
    """The same id from another install is rejected, and the first event stays."""
    first = EventFactory("a" * 32).observation(seq=1)
    server.send(first)
    [verdict] = server.send(msgspec.structs.replace(first, install="b" * 32))
    assert (verdict.verdict, verdict.reason[:8]) == ("rejected", "conflict")


def test_a_reward_may_come_before_its_decision(server):
    """An outcome that arrives before its decision is stored, and the log has both in order."""
    make = EventFactory()
    decision = make.decision(seq=1)
    outcome = make.outcome(decision, seq=2)
    assert [server.send(event)[0].verdict for event in (outcome, decision)] == ["ok", "ok"]
    assert read_segments(str(server.folder)).events == {("a" * 32, "c" * 32): [decision, outcome]}


@pytest.mark.parametrize("wall", [-(10**18), 0, 4_102_444_800_000, 10**14, 10**17, 2**63, 10**40])
def test_an_absurd_clock_is_harmless(server, wall):
    """An event of any time is stored, gets a time no later than its receipt, and is used in
    training.
    """
    [event] = events(1)
    odd = codec.encode(event).replace(b'"wall":1750000000000', b'"wall":%d' % wall)
    assert server.post(codec.pack([odd]), {**HEADERS, "sent-at": "soon"})[0] == 200
    log = read_segments(str(server.folder))
    assert 0 <= log.time[event.id] <= time.time() * 1000
    assert len(examples_of(log, ["red"], ["purchase"], 4).histories) == 1


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE events; --",
        "../../etc/passwd",
        "a\nERROR forged\x1b[31m",
        '=cmd|"/c calc"!A1',
        "\0",
        "💥‮",
    ],
)
def test_hostile_texts_are_only_texts(server, capfd, text):
    """A text field reads back as it was sent, and appears in no file name and no log."""
    event = EventFactory().observation(seq=1, item=text)
    assert server.send(event)[0].verdict == "ok"
    assert read_segments(str(server.folder)).events == {("a" * 32, "c" * 32): [event]}
    output = capfd.readouterr()
    assert (output.out, output.err) == ("", "")
    assert all(path.suffix in (".zst", "") for path in server.folder.rglob("*"))
