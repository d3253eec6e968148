"""The collector over a real socket: it answers only for what is durable, and refuses the rest by name."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
import uvicorn
import zstandard

from sanderling.clock import SystemClock
from sanderling.contract import events as wire
from sanderling.contract.events import Event, Observation, Verdict
from sanderling.outbox import Outbox
from sanderling.transport import HttpTransport
from sanderling.upload import Uploader
from sanderling_trainer.data.segments import read_segments
from sanderling_trainer.fleet import collector
from sanderling_trainer.fleet.collector import create_app
from sanderling_trainer.fleet.segments import LocalFiles
from tests.fakes import EventFactory

pytestmark = pytest.mark.lab

HEADERS = {"authorization": "Bearer secret", "content-encoding": "zstd", "sent-at": "1750000000000"}


class Server:
    """uvicorn on a free port in a thread, over a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        config = uvicorn.Config(
            create_app(str(folder), "secret"), port=0, log_level="error", timeout_graceful_shutdown=5
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.005)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]

    def post(self, body: bytes, headers: dict[str, str] = HEADERS, **more: str) -> tuple[int, dict, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("POST", "/v1/events", body, headers | {k.replace("_", "-"): v for k, v in more.items()})
        answer = connection.getresponse()
        content = json.loads(answer.read())
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, content

    def send(self, *events: Event) -> list[Verdict]:
        status, _, content = self.post(wire.pack(wire.encode(event) for event in events))
        assert status == 200, content
        return msgspec.convert(content["verdicts"], list[Verdict])

    def files(self, folder: str) -> list[Path]:
        return sorted(path for path in self.folder.glob(f"{folder}/*/*"))

    def dead(self) -> list[dict]:
        unpack = zstandard.ZstdDecompressor().decompress
        return [json.loads(row) for path in self.files("dead") for row in unpack(path.read_bytes()).splitlines()]

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    server = Server(tmp_path / "store")
    yield server
    server.stop()


def events(count: int, start: int = 1) -> list[Observation]:
    make = EventFactory(start=start)
    return [make.observation(seq=seq) for seq in range(start, start + count)]


def test_an_answered_batch_is_in_a_segment(server):
    """When the answer is there, so is the segment, and it reads back as what was sent."""
    sent = events(5)
    assert [verdict.verdict for verdict in server.send(*sent)] == ["ok"] * 5
    log = read_segments(str(server.folder))
    assert log.events == {("a" * 32, "c" * 32): sent}
    assert log.missing == 0


def test_the_segment_is_flushed_before_the_answer(server, monkeypatch):
    """File, name and folder are flushed, in this order, before the answer leaves."""
    calls: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def watched_fsync(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def watched_rename(self: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(self, target)

    server.send(*events(1))
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "rename", watched_rename)
    server.send(*events(1, start=50))
    assert calls == ["file", "rename", "folder"]


def test_a_repeated_batch_is_answered_duplicate_and_stored_once(server):
    """Sending the same batch again is harmless: the verdict is duplicate and no segment is added."""
    sent = events(3)
    server.send(*sent)
    assert [verdict.verdict for verdict in server.send(*sent)] == ["duplicate"] * 3
    assert len(server.files("segments")) == 1


def test_a_batch_that_repeats_itself_is_stored_once(server):
    """The same event twice in one batch is ok and duplicate."""
    [event] = events(1)
    assert [verdict.verdict for verdict in server.send(event, event)] == ["ok", "duplicate"]
    assert read_segments(str(server.folder)).received == 1


def test_a_second_body_under_an_id_is_a_conflict(server):
    """The same id with another body is rejected and lies in the dead letters with the reason."""
    [event] = events(1)
    other = msgspec.structs.replace(event, item="blue")
    server.send(event)
    [verdict] = server.send(other)
    assert (verdict.id, verdict.verdict) == (event.id, "rejected")
    assert "conflict" in verdict.reason
    [letter] = server.dead()
    assert wire.decode(letter["line"].encode()) == other


def test_a_bad_event_does_not_harm_its_neighbours(server):
    """One event that breaks the schema is rejected with its place; those around it are stored."""
    good = events(2)
    bad = wire.encode(events(1, start=9)[0]).replace(b'"item":"red"', b'"item":"red","extra":1')
    status, _, content = server.post(wire.pack([wire.encode(good[0]), bad, wire.encode(good[1])]))
    assert status == 200
    assert [row["verdict"] for row in content["verdicts"]] == ["ok", "rejected", "ok"]
    assert "extra" in content["verdicts"][1]["reason"]
    assert [letter["line"].encode() for letter in server.dead()] == [bad]
    assert read_segments(str(server.folder)).received == 2


def test_a_semantic_fault_is_rejected(server):
    """A well-typed decision that shows an item twice is rejected."""
    twice = EventFactory().decision(seq=1, slate=[wire.Slot("red", 0, False, 0.5, 0.5)] * 2)
    [verdict] = server.send(twice)
    assert (verdict.verdict, "slate" in verdict.reason) == ("rejected", True)


BATCH = wire.pack([wire.encode(event) for event in events(1)])


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (BATCH, {"authorization": "Bearer wrong"}, 401),
        (BATCH, {"authorization": ""}, 401),
        (BATCH, {"authorization": "Bearer sécret"}, 401),
        (b"garbage, but nobody looks", {"authorization": "Basic x"}, 401),
        (BATCH, {"content_encoding": "gzip"}, 415),
        (BATCH, {"content_encoding": "zstd, zstd"}, 415),
        (b"x" * (collector.MAX_BODY_BYTES + 1), {}, 413),
        (zstandard.ZstdCompressor(level=1).compress(bytes(2**28)), {}, 413),
        (b"garbage", {}, 400),
        (b"", {}, 400),
        (BATCH[:-2], {}, 400),
        (BATCH + BATCH, {}, 400),
        (wire.pack([b"{}"]), {}, 400),
        (wire.pack([b"[" * 60_000]), {}, 400),
        (wire.pack([b'{"id":1}']), {}, 400),
        (wire.pack([b"1"] * (wire.MAX_BATCH_EVENTS + 1)), {}, 413),
    ],
)
def test_what_is_not_a_batch_is_refused_whole(server, body, headers, expected):
    """Wrong token, encoding, size or bytes: the right status with a reason, and nothing is stored."""
    status, _, content = server.post(body, **headers)
    assert status == expected
    assert content["error"]
    assert server.files("*") == []


def test_a_streamed_body_is_capped_without_a_declared_length(server):
    """A chunked body is cut off at the cap though it never said how long it would be."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    chunks = (b"x" * 2**16 for _ in range(2 * collector.MAX_BODY_BYTES // 2**16))
    try:
        connection.request("POST", "/v1/events", chunks, HEADERS, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server hung up in the middle of the body, which is as good
    assert server.send(*events(1))[0].verdict == "ok"


def test_an_empty_batch_is_answered(server):
    """No events, no verdicts, no file."""
    assert server.send() == []
    assert server.files("*") == []


@pytest.mark.parametrize("value", ["", "soon", "-5", "9" * 30, "²"])
def test_an_absurd_sent_at_is_as_good_as_none(server, value):
    """Events are stored without a correction of the clock when the header makes no sense."""
    status, _, _ = server.post(BATCH, HEADERS | {"sent-at": value.encode("latin-1", "ignore").decode("latin-1")})
    assert status == 200
    assert list(read_segments(str(server.folder)).time.values()) == [1_750_000_000_000]


def test_health(server):
    """The health check needs no token."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", "/v1/health")
    assert json.loads(connection.getresponse().read()) == {"status": "ok"}


def test_a_failing_store_is_answered_503_and_recovers(server, monkeypatch):
    """While the store fails nothing is acknowledged; the same batch goes through afterwards as ok, not duplicate."""
    sent = events(2)

    def fail(self: LocalFiles, name: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "create", fail)
        status, headers, content = server.post(wire.pack(wire.encode(event) for event in sent))
        assert (status, headers["retry-after"]) == (503, "5")
        assert "No space left" in content["error"]
    assert [verdict.verdict for verdict in server.send(*sent)] == ["ok", "ok"]


def test_requests_that_wait_together_share_a_segment(server, monkeypatch):
    """While one segment is being written the next requests gather, and all are answered from one commit."""
    create = LocalFiles.create

    def slow(self: LocalFiles, name: str, data: bytes) -> None:
        time.sleep(0.05)
        create(self, name, data)

    monkeypatch.setattr(LocalFiles, "create", slow)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda event: server.send(event)[0].verdict, events(20)))
    assert answers == ["ok"] * 20
    assert len(server.files("segments")) < 10
    assert read_segments(str(server.folder)).received == 20


def test_overload_is_refused_with_a_time_to_wait(server, monkeypatch):
    """Beyond the bound the answer is 503 with Retry-After, never a lost event: what was answered ok is stored (P25)."""
    create = LocalFiles.create

    def slow(self: LocalFiles, name: str, data: bytes) -> None:
        time.sleep(0.1)
        create(self, name, data)

    monkeypatch.setattr(LocalFiles, "create", slow)
    monkeypatch.setattr(collector, "MAX_REQUESTS", 3)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda event: server.post(wire.pack([wire.encode(event)])), events(20)))
    taken = [content["verdicts"][0]["id"] for status, _, content in answers if status == 200]
    refused = [headers["retry-after"] for status, headers, _ in answers if status == 503]
    assert len(taken) + len(refused) == 20
    assert refused
    stored = [event.id for found in read_segments(str(server.folder)).events.values() for event in found]
    assert sorted(taken) == sorted(stored)


def test_too_much_waiting_is_refused(server, monkeypatch):
    """When more bytes wait than the bound allows, the batch is refused with Retry-After."""
    monkeypatch.setattr(collector, "MAX_WAITING_BYTES", 10)
    status, headers, _ = server.post(BATCH)
    assert (status, headers["retry-after"]) == (503, "5")


def test_a_slow_body_is_given_up(server, monkeypatch):
    """A client that never finishes its body gets 408 instead of a place for ever."""
    monkeypatch.setattr(collector, "BODY_TIMEOUT_S", 0.1)
    head = "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(head.encode() + b"\r\nsome")
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_the_memory_of_ids_is_bounded():
    """The oldest ids make room for new ones."""
    memory = collector.Memory(3)
    memory.add({"a": 1, "b": 2})
    memory.add({"c": 3, "d": 4})
    assert [memory.get(id) for id in "abcd"] == [None, 2, 3, 4]


def test_from_outbox_to_log(server, tmp_path):
    """A device's events travel over HTTP into the lab's log, each once, in order, with nothing missing."""
    outbox = Outbox(tmp_path / "device", clock=SystemClock())
    make = EventFactory(outbox.install)
    decisions = [make.decision() for _ in range(200)]
    outbox.put(decisions)
    outbox.put_durable([make.outcome(decision) for decision in decisions])
    transport = HttpTransport(f"http://127.0.0.1:{server.port}/v1", "secret")
    uploader = Uploader(outbox, transport, clock=SystemClock(), rng=random.Random(0), max_events=70)
    assert uploader.drain(10)
    outbox.close()
    log = read_segments(str(server.folder))
    assert (log.decisions(), log.outcomes(), log.missing, log.duplicates) == (200, 200, 0, 0)
    assert [event.seq for event in log.events[outbox.install, "c" * 32]] == list(range(1, 401))


SERVE = """
import sys, threading, time
from sanderling_trainer.fleet import collector, segments
create = segments.LocalFiles.create
def late(self, name, data):
    time.sleep(0.01)
    create(self, name, data)
def answer_first(self, name, data):
    threading.Timer(0.05, create, (self, name, data)).start()
segments.LocalFiles.create = answer_first if sys.argv[3] == "answer_first" else late
collector.serve(sys.argv[1], port=int(sys.argv[2]), token="secret")
"""


def stop_under_load(folder: Path, sign: signal.Signals, mutant: str = "") -> tuple[set[str], set[str]]:
    """Stop a collector in another process while four clients send; return the ids answered ok, and those stored."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(folder), str(port), mutant])
    answered: set[str] = set()
    transport_errors = threading.Event()

    def client(number: int) -> None:
        make = EventFactory(start=number << 32 | 1)
        transport = HttpTransport(f"http://127.0.0.1:{port}/v1", "secret", timeout_s=5)
        while not transport_errors.is_set():
            batch = [make.observation(seq=1) for _ in range(20)]
            try:
                response = transport.post(wire.pack(map(wire.encode, batch)), {"content-encoding": "zstd"})
            except OSError:
                if answered:
                    return
                continue
            if response.status == 200:
                answered.update(row["id"] for row in json.loads(response.body)["verdicts"] if row["verdict"] == "ok")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while not answered and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.1)
    process.send_signal(sign)
    process.wait(10)
    transport_errors.set()
    for thread in threads:
        thread.join()
    stored = [event.id for found in read_segments(str(folder)).events.values() for event in found]
    return answered, set(stored)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_answered_is_stored_though_the_server_is_stopped(tmp_path, sign):
    """SIGTERM or SIGKILL under load: every event that was answered ok is in a segment (promise P23)."""
    answered, stored = stop_under_load(tmp_path, sign)
    assert answered
    assert answered <= stored


def test_the_harness_finds_a_collector_that_answers_first(tmp_path):
    """A collector that answers before its segment is written is found out by a kill (P4)."""
    answered, stored = stop_under_load(tmp_path, signal.SIGKILL, "answer_first")
    assert not answered <= stored
