"""Erasing an install leaves no byte of its id, and refuses its later uploads."""

from __future__ import annotations

import os
import time

import pytest

from sanderling.events import codec
from sanderling_trainer.event_log import segment_format
from sanderling_trainer.event_log.object_store import REMOTE_TIMEOUT, LocalObjectStore, open_store
from sanderling_trainer.event_log.reader import read_events, read_segments
from sanderling_trainer.event_log.tombstones import LOOKUP_CACHE_S, tombstone_file
from sanderling_trainer.jobs import erase as job
from sanderling_trainer.jobs.compact import compact
from sanderling_trainer.jobs.erase import InstallError, erase
from sanderling_trainer.jobs.lease import MIN_REMAINING_S
from tests.support.fakes import EventFactory, FakeClock
from tests.support.servers import Server, packed
from tests.support.stores import DAY_S, GONE, STAYS, contents, filled, holding, put

pytestmark = pytest.mark.lab


def test_no_byte_of_the_id_is_left_and_the_others_stay(tmp_path):
    """After erasing no name and no content, also decompressed, has the id; the other install is
    complete.
    """
    store = filled(tmp_path)
    assert holding(tmp_path, GONE)
    before = read_segments(str(tmp_path))
    done = erase(store, GONE, FakeClock(), pause=lambda seconds: None)
    assert done.lines == 25
    assert holding(tmp_path, GONE) == []
    after = read_segments(str(tmp_path))
    assert after.events == {key: events for key, events in before.events.items() if key[0] == STAYS}
    assert len(after.events[STAYS, "c" * 32]) == 3
    assert sum(STAYS.encode() in content for content in contents(tmp_path)) > 3


@pytest.mark.mutant
@pytest.mark.parametrize("folder", ["segments", "dead", "daily", "history"])
def test_the_byte_search_finds_an_erasure_that_forgets_a_folder(tmp_path, monkeypatch, folder):
    """The same search finds an erasure that leaves out one kind of file."""
    store = filled(tmp_path)
    names = LocalObjectStore.names
    monkeypatch.setattr(
        LocalObjectStore,
        "names",
        lambda self, listed: [] if listed == folder else names(self, listed),
    )
    erase(store, GONE, FakeClock(), pause=lambda seconds: None)
    assert holding(tmp_path, GONE)


def test_an_id_in_escapes_or_in_another_field_is_found(tmp_path):
    """An id in JSON escapes, or within an item's name, is removed too."""
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    make, other = EventFactory(GONE), EventFactory(STAYS, start=50)
    escaped = codec.encode(make.observation(seq=1)).replace(
        b'"install":"a1', b'"install":"\\u0061\\u0031'
    )
    put(store, clock, escaped)
    put(store, clock, codec.encode(other.observation(seq=1, item=f"of {GONE}")))
    assert read_segments(str(tmp_path)).received == 2
    erase(store, GONE, FakeClock(), pause=lambda seconds: None)
    assert read_segments(str(tmp_path)).received == 0
    assert store.names("segments") == []


def test_the_second_pass_removes_what_collectors_stored_meanwhile(tmp_path):
    """A collector that looked just before the tombstone was written stores a batch: the second pass
    removes it.
    """
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    late = codec.encode(EventFactory(GONE).observation(seq=1))
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        put(store, clock, late)

    assert erase(store, GONE, clock, pause).lines == 1
    assert holding(tmp_path, GONE) == []
    assert pauses == [job.SETTLE_S]
    put(store, clock, late)
    assert read_segments(str(tmp_path)).received == 0
    clock.advance(DAY_S)
    compact(store, clock)
    assert holding(tmp_path, GONE) == []


def test_the_next_compaction_removes_what_came_after_the_last_pass(tmp_path):
    """Lines of a commit that takes minutes are skipped by readers and removed by the compaction,
    valid or not.
    """
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    erase(store, GONE, clock, clock.advance)
    late, other = EventFactory(GONE), EventFactory(STAYS, start=50)
    put(
        store,
        clock,
        codec.encode(late.observation(seq=1)),
        codec.encode(other.observation(seq=1, item=GONE)),
    )
    bad = [
        codec.encode(late.observation(seq=2)) + b"!",
        b'{"id":"1", "install" :"\\u0061' + GONE.encode()[1:] + b'"',
    ]
    kept = codec.encode(other.observation(seq=2)) + b"!"
    letters = [
        segment_format.encode_dead_letter(event, clock.wall_ms(), "bad") for event in (*bad, kept)
    ]
    store.put(name := segment_format.new_file_name("dead", clock), segment_format.pack(letters))
    store.put("dead/README", b"no letters")
    assert read_segments(str(tmp_path)).received == 1
    clock.advance(DAY_S)
    compact(store, clock)
    assert segment_format.unpack(store.get(name)) == letters[2:]
    assert [seen.event.install for seen in read_events(store)] == [STAYS]


def test_a_compaction_reads_only_recent_dead_letters(tmp_path):
    """Without tombstones none are read, with them those of the last week and since the oldest
    segment.
    """
    clock, days = FakeClock(), []
    store = LocalObjectStore(tmp_path)
    for _ in range(30):
        days.append(segment_format.utc_day(clock))
        store.put(segment_format.new_file_name("dead", clock), segment_format.pack([b"{}"]))
        clock.advance(DAY_S)
    read: list[str] = []
    store.get = lambda name: read.append(name) or LocalObjectStore.get(store, name)  # type: ignore[method-assign]
    for mark, segment, expected in (
        (False, "", []),
        (True, "", days[-7:]),
        (True, days[5], days[5:]),
    ):
        if mark:
            store.put(tombstone_file(GONE), b"")
        if segment:
            event = codec.encode(EventFactory(STAYS).observation(seq=1))
            store.put(
                f"segments/{segment}/a{segment_format.SUFFIX}",
                segment_format.pack([segment_format.encode_line(event, 1, None)]),
            )
        read.clear()
        compact(store, clock)
        assert [name.split("/")[1] for name in read if name.startswith("dead")] == expected


def test_an_erasure_waits_longer_than_a_commit_can_take():
    """The second pass comes after cached lookups have expired and six requests have been tried
    twice.
    """
    assert LOOKUP_CACHE_S + 12 * REMOTE_TIMEOUT.total_seconds() <= job.SETTLE_S < MIN_REMAINING_S


def test_foreign_files_are_left_unchanged(tmp_path):
    """A foreign file in segments or dead letters does not stop an erasure, and is named in the
    result.
    """
    store, clock = filled(tmp_path), FakeClock()
    for name in ("segments/README", "dead/2025-06-15/notes.txt"):
        store.put(name, b"somebody's")
    done = erase(store, GONE, clock, clock.advance)
    assert (done.lines, done.foreign) == (25, ["segments/README", "dead/2025-06-15/notes.txt"])
    assert holding(tmp_path, GONE) == []


def test_what_a_dead_collector_left_half_written_goes_too(tmp_path):
    """A collector that crashes in a write leaves bytes under no name: the erasure removes them, and
    nothing is left.
    """
    store, clock = filled(tmp_path), FakeClock()
    part = tmp_path / "segments" / ".2.jsonl.zst.part"
    part.write_bytes(codec.encode(EventFactory(GONE).observation(seq=1)))
    os.utime(part, (0, time.time() - job.COMMIT_S - 1))
    erase(store, GONE, clock, pause=clock.advance)
    assert holding(tmp_path, GONE) == []


def test_late_uploads_are_gone_and_leave_nothing(tmp_path):
    """After erasing, a batch of the install is answered 410, good events or bad; others are served
    on.
    """
    clock = FakeClock()
    server = Server(tmp_path, clock=clock)
    make = EventFactory(GONE)
    assert server.post(packed(make.observation(seq=1)))[0] == 200
    erase(LocalObjectStore(tmp_path), GONE, clock, pause=clock.advance)
    assert server.post(packed(make.observation(seq=2)))[0] == 410
    assert (
        server.post(codec.pack([codec.encode(make.observation(seq=3)).replace(b'"red"', b"1")]))[0]
        == 410
    )
    assert server.post(packed(EventFactory(STAYS, start=50).observation(seq=1)))[0] == 200
    server.stop()
    assert holding(tmp_path, GONE) == []


def test_an_object_store_is_erased_like_a_folder(bucket):
    """Behind an S3 interface the id is removed too."""
    store, clock = open_store(bucket), FakeClock()
    put(store, clock, codec.encode(EventFactory(GONE).observation(seq=1)))
    put(store, clock, codec.encode(EventFactory(STAYS, start=50).observation(seq=1)))
    assert erase(store, GONE, FakeClock(), pause=lambda seconds: None).lines == 1
    assert [key[0] for key in read_segments(bucket).events] == [STAYS]
    assert len(store.names("segments")) == 1


@pytest.mark.parametrize("install", ["", "a1", "../../x", "A1" * 16, "a1" * 16 + "\n"])
def test_an_invalid_install_is_refused(tmp_path, install):
    """Anything but 32 hex digits raises InstallError, and nothing is written."""
    with pytest.raises(InstallError, match="32 hex digits"):
        erase(LocalObjectStore(tmp_path), install, FakeClock())
    assert list(tmp_path.iterdir()) == []
