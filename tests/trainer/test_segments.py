"""Reading segments: each event once, in order, whatever was repeated, with what is missing counted."""

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
from sanderling_trainer.event_log.segment_format import line, new_name, pack
from tests.support.fakes import EventFactory, FakeClock

pytestmark = pytest.mark.lab

INSTALL, USER = "a" * 32, "c" * 32
NOW = 1_750_000_100_000


def store(folder, *segments: list[wire.Event], sent_at: int | None = None) -> str:
    for at, events in enumerate(segments):
        rows = [line(codec.encode(event), NOW + at, sent_at) for event in events]
        open_store(str(folder)).put(new_name("segments", FakeClock()), pack(rows))
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
    """Nothing collected yet reads as nothing, not as an error."""
    assert read_segments(str(tmp_path)) == EventLog()


def test_events_come_by_user_in_the_order_of_their_numbers(tmp_path):
    """Segments in any order give each user's events in the order in which the device numbered them."""
    events = story(EventFactory(INSTALL))
    log = read_segments(store(tmp_path, [events[3], events[1]], [events[2], events[0]]))
    assert log.events == {(INSTALL, USER): events}
    assert (log.decisions(), log.outcomes(), log.observations()) == (1, 1, 2)
    assert (log.received, log.duplicates, log.conflicts, log.missing) == (4, 0, 0, 0)
    assert log.incomplete == frozenset()


def test_repeated_events_count_once(tmp_path):
    """The same event in three segments is one event and two duplicates."""
    events = story(EventFactory(INSTALL))
    log = read_segments(store(tmp_path, events, events[:2], events[:2]))
    assert log.events == {(INSTALL, USER): events}
    assert (log.received, log.duplicates) == (8, 4)


def test_an_id_with_two_bodies_is_a_conflict_and_the_first_is_kept(tmp_path):
    """A second body under a known id is counted and ignored."""
    make = EventFactory(INSTALL)
    first = make.observation(seq=1)
    second = make.observation(seq=1, id=first.id, item="blue")
    log = read_segments(store(tmp_path, [first], [second]))
    assert log.events == {(INSTALL, USER): [first]}
    assert (log.conflicts, log.duplicates) == (1, 0)


def test_a_number_used_twice_is_a_conflict(tmp_path):
    """Two events under one number of one install, as from a restored disk image, are counted."""
    make = EventFactory(INSTALL)
    log = read_segments(store(tmp_path, [make.observation(seq=1), make.observation(seq=1)]))
    assert log.conflicts == 1


def test_gaps_are_missing_unless_declared(tmp_path):
    """A number that never came is missing, one that a Loss event declares is not; each install counts for itself."""
    make, other = EventFactory(INSTALL), EventFactory("b" * 32, start=1000)
    loss = wire.Loss(
        "e" * 32, INSTALL, 6, wire.Clock(0, 0, "b" * 32), "full", decisions=1, outcomes=1
    )
    mine = [make.observation(seq=seq) for seq in (1, 3, 5)]
    theirs = [other.observation(seq=seq) for seq in (1, 5)]
    log = read_segments(store(tmp_path, [*mine, loss, *theirs]))
    assert log.losses == [loss]
    assert log.missing == 3
    assert log.incomplete == {"b" * 32}


def test_what_was_given_up_and_came_all_the_same_counts_once(tmp_path):
    """Numbers that a Loss event names are accounted for, whether they came or not; another that is gone is missing."""
    make = EventFactory(INSTALL)
    loss = wire.Loss(
        "e" * 32,
        INSTALL,
        6,
        wire.Clock(0, 0, "b" * 32),
        "forgotten",
        observations=3,
        lost_seqs=[2, 3],
    )
    mine = {seq: make.observation(seq=seq) for seq in range(1, 6)}
    for at, (there, missing) in enumerate(
        [((1, 4), 0), ((1, 2, 4), 0), ((1, 2, 3, 4), 0), ((1, 2, 3), 1), ((4, 5), 0)]
    ):
        log = read_segments(store(tmp_path / str(at), [*(mine[seq] for seq in there), loss]))
        assert (log.missing, bool(log.incomplete)) == (missing, missing > 0)


def test_a_single_deleted_row_is_named(tmp_path):
    """Taking any one event but the last out of a complete install makes that install incomplete (promise P10)."""
    events = story(EventFactory(INSTALL))
    for gone in range(3):
        log = read_segments(store(tmp_path / str(gone), events[:gone] + events[gone + 1 :]))
        assert (log.missing, log.incomplete) == (1, {INSTALL})


def test_wrong_clocks_are_corrected(tmp_path):
    """An event made 10 s before sending is 10 s before receiving, though the device's clock is years off."""
    make = EventFactory(INSTALL)
    event = make.observation(seq=1)
    log = read_segments(store(tmp_path, [event], sent_at=event.clock.wall + 10_000))
    assert log.time == {event.id: NOW - 10_000}


@pytest.mark.parametrize("wall", [0, 3_000, 1_700_000_000_000, 2**62])
def test_a_time_that_cannot_be_is_when_the_event_was_received(tmp_path, wall):
    """An event made under a clock of 1970, or any before there were events, that was set before sending."""
    event = EventFactory(INSTALL).observation(seq=1, clock=wire.Clock(wall, 5_000, "b" * 32))
    log = read_segments(store(tmp_path, [event], sent_at=NOW))
    assert log.time == {event.id: NOW}


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 5))
def test_any_order_repetition_and_split_gives_the_same_log(
    tmp_path_factory, rng: random.Random, times: int
):
    """However batches are cut, repeated and shuffled, the events and the count of what is missing are the same (P9)."""
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
    """A segment that is cut off or not what it should be is an EventError with its name, never skipped."""
    store(tmp_path, story(EventFactory(INSTALL)))
    [path] = tmp_path.glob("segments/*/*")
    data = path.read_bytes()
    compress = zstandard.ZstdCompressor().compress
    event = line(b"{}", 1, 1)
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
    """A part left by a crash, and files of others, are not read."""
    events = story(EventFactory(INSTALL))
    store(tmp_path, events)
    [path] = tmp_path.glob("segments/*/*")
    path.with_name(f".{path.name}.part").write_bytes(b"half")
    path.with_name("notes.txt").write_text("hello")
    assert read_segments(str(tmp_path)).received == 4


def test_an_object_store_reads_like_a_folder(tmp_path, bucket):
    """Segments behind the S3 interface are written and read like those of a folder."""
    events = story(EventFactory(INSTALL))
    assert read_segments(store(bucket, events)) == read_segments(store(tmp_path, events))
    assert read_segments(bucket).events == {(INSTALL, USER): events}
