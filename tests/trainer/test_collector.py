"""The collector over a socket: it answers when events are durable, with one verdict for each."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.outbox.outbox import Outbox
from sanderling.runtime.clock import SystemClock
from sanderling.upload.transport import HttpTransport
from sanderling.upload.uploader import Uploader, UploadOptions
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.event_log.reader import read_segments
from sanderling_trainer.event_log.tombstones import ERASED, ROTATED, rotation_file
from tests.support.fakes import EventFactory
from tests.support.servers import BrokenStore, HeldStore, Server, events, packed
from tests.support.waiting import wait_until

pytestmark = pytest.mark.lab


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    server = Server(tmp_path / "store")
    yield server
    server.stop()


def test_an_answered_batch_is_in_a_segment(server):
    """When the answer arrives the segment exists, and reads back as what was sent."""
    sent = events(5)
    assert [verdict.verdict for verdict in server.send(*sent)] == ["ok"] * 5
    log = read_segments(str(server.folder))
    assert log.events == {("a" * 32, "c" * 32): sent}
    assert log.missing == 0


def test_a_repeated_batch_is_answered_duplicate_and_stored_once(server):
    """The verdicts for a batch that is sent again are `duplicate`, and no segment is added."""
    sent = events(3)
    server.send(*sent)
    assert [verdict.verdict for verdict in server.send(*sent)] == ["duplicate"] * 3
    assert len(server.files("segments")) == 1


def test_an_event_twice_in_a_batch_is_stored_once(server):
    """The same event twice in one batch gets `ok` and `duplicate`."""
    [event] = events(1)
    assert [verdict.verdict for verdict in server.send(event, event)] == ["ok", "duplicate"]
    assert read_segments(str(server.folder)).received == 1


def test_a_second_body_under_an_id_is_a_conflict(server):
    """The same id with another body is rejected, and is in the dead letters with the reason."""
    [event] = events(1)
    other = msgspec.structs.replace(event, item="blue")
    server.send(event)
    [verdict] = server.send(other)
    assert (verdict.id, verdict.verdict) == (event.id, "rejected")
    assert "conflict" in verdict.reason
    [letter] = server.dead()
    assert codec.decode(letter["line"].encode()) == other


def test_a_bad_event_does_not_affect_its_neighbours(server):
    """An event that breaks the schema is rejected with the field's name; those around it are
    stored.
    """
    good = events(2)
    bad = codec.encode(events(1, start=9)[0]).replace(b'"item":"red"', b'"item":"red","extra":1')
    status, _, content = server.post(
        codec.pack([codec.encode(good[0]), bad, codec.encode(good[1])])
    )
    assert status == 200
    assert [row["verdict"] for row in content["verdicts"]] == ["ok", "rejected", "ok"]
    assert "extra" in content["verdicts"][1]["reason"]
    assert [letter["line"].encode() for letter in server.dead()] == [bad]
    assert read_segments(str(server.folder)).received == 2


def test_a_semantic_fault_is_rejected(server):
    """A decision that matches the schema but shows an item twice is rejected."""
    twice = EventFactory().decision(seq=1, slate=[wire.Slot("red", 0, False, 0.5, 0.5)] * 2)
    [verdict] = server.send(twice)
    assert (verdict.verdict, "slate" in verdict.reason) == ("rejected", True)


def test_the_answer_asks_marked_installs_to_rotate(server):
    """Of two installs in a batch the answer names the marked one; its events are stored as well."""
    marked, other = EventFactory("a1" * 16), EventFactory("b2" * 16, start=50)
    LocalObjectStore(server.folder).put(rotation_file(marked.install), b"")
    _, _, content = server.post(packed(marked.observation(seq=1), other.observation(seq=1)))
    assert (content["rotate"], [row["verdict"] for row in content["verdicts"]]) == (
        [marked.install],
        ["ok", "ok"],
    )
    assert "rotate" not in server.post(packed(other.observation(seq=2)))[2]
    assert read_segments(str(server.folder)).received == 3


def test_the_marks_of_a_batch_are_looked_up_concurrently(tmp_path):
    """Each of sixteen lookups waits until all have begun: one after the other they would not
    finish.
    """
    barriers = {ERASED: threading.Barrier(16), ROTATED: threading.Barrier(16)}

    class BarrierStore(LocalObjectStore):
        def has(self, name: str) -> bool:
            if barrier := barriers.get(name.split("/")[0]):
                barrier.wait(20)
            return super().has(name)

    server = Server(tmp_path, BarrierStore(tmp_path))
    sent = [
        EventFactory(f"{number:032x}", start=1 + number).observation(seq=1) for number in range(16)
    ]
    assert [verdict.verdict for verdict in server.send(*sent)] == ["ok"] * 16
    server.stop()


def test_from_outbox_to_log(server, tmp_path):
    """A device's events reach the log over HTTP, each once, in order, none missing."""
    outbox = Outbox(tmp_path / "device", clock=SystemClock())
    make = EventFactory(outbox.install)
    decisions = [make.decision() for _ in range(200)]
    outbox.put(decisions)
    outbox.put_durable([make.outcome(decision) for decision in decisions])
    transport = HttpTransport(f"http://127.0.0.1:{server.port}/v1", "secret")
    options = UploadOptions(max_events=70)
    uploader = Uploader(outbox, transport, options, clock=SystemClock(), rng=random.Random(0))
    assert uploader.drain(10)
    outbox.close()
    log = read_segments(str(server.folder))
    assert (log.decisions(), log.outcomes(), log.missing, log.duplicates) == (200, 200, 0, 0)
    assert [event.seq for event in log.events[outbox.install, "c" * 32]] == list(range(1, 401))


def test_a_failing_store_is_answered_503_and_recovers(tmp_path):
    """While the store fails nothing is acknowledged; afterwards the same batch is `ok`, not
    `duplicate`.
    """
    store = BrokenStore(tmp_path)
    server = Server(tmp_path, store)
    sent = events(2)
    status, headers, content = server.post(packed(*sent))
    assert (status, headers["retry-after"]) == (503, "5")
    assert "No space left" in content["error"]
    store.broken = False
    assert [verdict.verdict for verdict in server.send(*sent)] == ["ok", "ok"]
    server.stop()


def test_requests_that_wait_together_share_a_segment(tmp_path):
    """While one segment is written the next requests gather, and one commit answers all of them."""
    store = HeldStore(tmp_path)
    server = Server(tmp_path, store)
    with ThreadPoolExecutor(20) as pool:
        posts = [pool.submit(server.send, event) for event in events(20)]
        assert wait_until(lambda: server.requests_in_progress() == 20)
        store.go.set()
    server.stop()
    assert [post.result()[0].verdict for post in posts] == ["ok"] * 20
    assert len(server.files("segments")) < 10
    assert read_segments(str(tmp_path)).received == 20
