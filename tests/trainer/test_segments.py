"""Reading segments: each event once, in order, with duplicates, conflicts and missing events
counted.
"""

from __future__ import annotations

import random

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.errors import EventError
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling_trainer.event_log.object_store import open_store
from sanderling_trainer.event_log.reader import EventLog, read_segments
from sanderling_trainer.event_log.segment_format import encode_line, new_file_name, pack
from tests.support.fakes import EventFactory, FakeClock

pytestmark = pytest.mark.lab

INSTALL, USER = "a" * 32, "c" * 32
NOW = 1_750_000_100_000


def store(folder, *segments: list[wire.Event], sent_at: int | None = None) -> str:
    for number, events in enumerate(segments):
        rows = [encode_line(codec.encode(event), NOW + number, sent_at) for event in events]
        open_store(str(folder)).put(new_file_name("segments", FakeClock()), pack(rows))
    return str(folder)


def story(make: EventFactory) -> list[wire.Event]:
    decision = make.decision(seq=1)
    return [
        decision,
        make.outcome(decision, seq=2),
        make.observation(seq=3),
        make.observation(seq=4),
    ]


def test_an_empty_store_is_an_empty_log(tmp_path):
    """A store without segments reads as an empty log, without an error."""
    assert read_segments(str(tmp_path)) == EventLog()


def test_events_come_by_user_in_the_order_of_their_numbers(tmp_path):
    """Segments in any order give each user's events in the order of their sequence numbers."""
    events = story(EventFactory(INSTALL))
    log = read_segments(store(tmp_path, [events[3], events[1]], [events[2], events[0]]))
    assert log.events == {(INSTALL, USER): events}
    assert (log.decisions(), log.outcomes(), log.observations()) == (1, 1, 2)
    assert (log.received, log.duplicates, log.conflicts, log.missing) == (4, 0, 0, 0)
    assert log.incomplete == frozenset()


def test_repeated_events_count_once(tmp_path):
    """An event in three segments is one event and two duplicates."""
    events = story(EventFactory(INSTALL))
    log = read_segments(store(tmp_path, events, events[:2], events[:2]))
    assert log.events == {(INSTALL, USER): events}
    assert (log.received, log.duplicates) == (8, 4)


def test_an_id_with_two_bodies_is_a_conflict_and_the_first_is_kept(tmp_path):
    """A second body with a known id is counted and ignored."""
    make = EventFactory(INSTALL)
    first = make.observation(seq=1)
    second = make.observation(seq=1, id=first.id, item="blue")
    log = read_segments(store(tmp_path, [first], [second]))
    assert log.events == {(INSTALL, USER): [first]}
    assert (log.conflicts, log.duplicates) == (1, 0)


def test_a_number_used_twice_is_a_conflict(tmp_path):
    """Two events of one install with one sequence number, as from a restored disk, are counted."""
    make = EventFactory(INSTALL)
    log = read_segments(store(tmp_path, [make.observation(seq=1), make.observation(seq=1)]))
    assert log.conflicts == 1


def test_gaps_are_missing_unless_declared(tmp_path):
    """A number that did not arrive is missing unless a Loss event declares it; installs are counted
    separately.
    """
    make, other = EventFactory(INSTALL), EventFactory("b" * 32, start=1000)
    loss = wire.Loss(
        "e" * 32, INSTALL, 6, wire.ClockReading(0, 0, "b" * 32), "full", decisions=1, outcomes=1
    )
    mine = [make.observation(seq=seq) for seq in (1, 3, 5)]
    theirs = [other.observation(seq=seq) for seq in (1, 5)]
    log = read_segments(store(tmp_path, [*mine, loss, *theirs]))
    assert log.losses == [loss]
    assert log.missing == 3
    assert log.incomplete == {"b" * 32}


def test_an_event_that_was_declared_lost_and_arrived_counts_once(tmp_path):
    """Numbers that a Loss event names are not missing, whether they arrived or not; other absent
    ones are.
    """
    make = EventFactory(INSTALL)
    loss = wire.Loss(
        "e" * 32,
        INSTALL,
        6,
        wire.ClockReading(0, 0, "b" * 32),
        "forgotten",
        observations=3,
        lost_seqs=[2, 3],
    )
    mine = {seq: make.observation(seq=seq) for seq in range(1, 6)}
    for case, (arrived, missing) in enumerate(
        [((1, 4), 0), ((1, 2, 4), 0), ((1, 2, 3, 4), 0), ((1, 2, 3), 1), ((4, 5), 0)]
    ):
        log = read_segments(store(tmp_path / str(case), [*(mine[seq] for seq in arrived), loss]))
        assert (log.missing, bool(log.incomplete)) == (missing, missing > 0)


def test_a_single_missing_event_is_reported(tmp_path):
    """A complete install becomes incomplete when any event but the last is removed."""
    events = story(EventFactory(INSTALL))
    for gone in range(3):
        log = read_segments(store(tmp_path / str(gone), events[:gone] + events[gone + 1 :]))
        assert (log.missing, log.incomplete) == (1, {INSTALL})


def test_wrong_clocks_are_corrected(tmp_path):
    """An event of 10 s before sending gets the time 10 s before the receipt, though the device's
    clock is years off.
    """
    make = EventFactory(INSTALL)
    event = make.observation(seq=1)
    log = read_segments(store(tmp_path, [event], sent_at=event.clock.wall + 10_000))
    assert log.time == {event.id: NOW - 10_000}


@pytest.mark.parametrize("wall", [0, 3_000, 1_700_000_000_000, 2**62])
def test_an_impossible_time_becomes_that_of_the_receipt(tmp_path, wall):
    """The clock was unset, or absurd, at the event and was set before sending: the time of receipt
    counts.
    """
    event = EventFactory(INSTALL).observation(seq=1, clock=wire.ClockReading(wall, 5_000, "b" * 32))
    log = read_segments(store(tmp_path, [event], sent_at=NOW))
    assert log.time == {event.id: NOW}


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_any_order_repetition_and_split_gives_the_same_log(
    tmp_path_factory, rng: random.Random, times: int
):
    """However batches are cut, repeated and shuffled, the events and the counts of missing ones are
    the same.
    """
    events = story(EventFactory(INSTALL)) + story(EventFactory("b" * 32, start=1000))
    arrived = events * times
    rng.shuffle(arrived)
    cut = rng.randint(0, len(arrived))
    log = read_segments(
        store(
            tmp_path_factory.mktemp("p9"),
            *(part for part in (arrived[:cut], arrived[cut:]) if part),
        )
    )
    assert log.events == {(INSTALL, USER): events[:4], ("b" * 32, USER): events[4:]}
    assert (log.duplicates, log.conflicts, log.missing) == (len(arrived) - 8, 0, 0)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "line", "event", "unfinished"])
def test_a_damaged_segment_is_named(tmp_path, damage):
    """A segment that is cut off or has the wrong content raises an EventError with its name."""
    store(tmp_path, story(EventFactory(INSTALL)))
    [path] = tmp_path.glob("segments/*/*")
    data = path.read_bytes()
    compress = zstandard.ZstdCompressor().compress
    event = encode_line(b"{}", 1, 1)
    damaged = {
        "truncated": data[:-3],
        "garbage": b"x" * 50,
        "line": compress(b"{}\n"),
        "event": compress(event + b"\n"),
        "unfinished": compress(zstandard.ZstdDecompressor().decompress(data) + event),
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(EventError, match=path.name):
        read_segments(str(tmp_path))


def test_unfinished_and_foreign_files_are_not_segments(tmp_path):
    """Half-written and foreign files are not read."""
    events = story(EventFactory(INSTALL))
    store(tmp_path, events)
    [path] = tmp_path.glob("segments/*/*")
    path.with_name(f".{path.name}.part").write_bytes(b"half")
    path.with_name("notes.txt").write_text("hello")
    assert read_segments(str(tmp_path)).received == 4


def test_an_object_store_reads_like_a_folder(tmp_path, bucket):
    """Segments behind an S3 interface are written and read like those of a folder."""
    events = story(EventFactory(INSTALL))
    assert read_segments(store(bucket, events)) == read_segments(store(tmp_path, events))
    assert read_segments(bucket).events == {(INSTALL, USER): events}
