"""Compaction changes where events are stored, never what is read."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.errors import EventError
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling_trainer.event_log import daily_parquet
from sanderling_trainer.event_log.object_store import LocalObjectStore, open_store
from sanderling_trainer.event_log.reader import read_segments
from sanderling_trainer.event_log.segment_format import encode_line, new_file_name, pack
from sanderling_trainer.jobs.compact import compact
from sanderling_trainer.jobs.lease import LEASE_S
from tests.support.fakes import EventFactory, FakeClock
from tests.support.stores import HookedStore

pytestmark = pytest.mark.lab

DAY_S = 86_400


def put(
    store: LocalObjectStore, clock: FakeClock, events: list[wire.Event], sent_at: int | None = None
) -> None:
    rows = [encode_line(codec.encode(event), clock.wall_ms(), sent_at) for event in events]
    store.put(new_file_name("segments", clock), pack(rows))


def story(rng: random.Random) -> list[wire.Event]:
    """Events of three installs with gaps, repetitions, two bodies of one id, a number used twice,
    and a loss.
    """
    events: list[wire.Event] = []
    for install, start in (("a" * 32, 1), ("b" * 32, 1000), ("d" * 32, 2000)):
        make = EventFactory(install, start)
        events += [make.observation(seq=seq) for seq in range(1, 12) if rng.random() < 0.8]
        events += [make.decision(seq=12), make.observation(seq=12)]
        events.append(make.observation(seq=1, id=f"{start:032x}", item="another"))
        events.append(
            wire.Loss(
                f"{start + 900:032x}",
                install,
                13,
                wire.ClockReading(0, 0, "b" * 32),
                "full",
                decisions=2,
            )
        )
    events += rng.choices(events, k=20)
    rng.shuffle(events)
    return events


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 80_000))
def test_reading_is_the_same_before_and_after(tmp_path_factory, rng: random.Random, max_bytes: int):
    """However events are split over segments and days, and whenever jobs run, the log equals the
    uncompacted one.
    """
    plain, compacted = (
        LocalObjectStore(tmp_path_factory.mktemp(name)) for name in ("plain", "compacted")
    )
    roots = str(plain.root), str(compacted.root)
    clock, events = FakeClock(), story(rng)
    while events:
        cut = rng.randint(1, 25)
        part, events = events[:cut], events[cut:]
        sent_at = rng.choice([None, clock.wall_ms() - 5000])
        for store in (plain, compacted):
            put(store, clock, part, sent_at)
        clock.advance(rng.choice([1, DAY_S]))
        if rng.random() < 0.3:
            compact(compacted, clock, max_bytes)
            assert read_segments(roots[0]) == read_segments(roots[1])
    clock.advance(DAY_S)
    compact(compacted, clock, max_bytes)
    assert compacted.names("segments") == []
    assert read_segments(roots[0]) == read_segments(roots[1])


class DyingStore(HookedStore):
    """Raises KeyboardInterrupt after so many changes."""

    def __init__(self, root: Path, changes: int) -> None:
        super().__init__(root)
        self.left = changes

    def before_change(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("changes", range(11))
def test_a_job_that_dies_changes_nothing_that_is_read(tmp_path, changes):
    """Wherever a job dies the log is the same, and the next job leaves no segments."""
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    make = EventFactory()
    for seq in range(1, 5):
        put(store, clock, [make.observation(seq=seq)])
    before = read_segments(str(tmp_path))
    clock.advance(DAY_S)
    try:
        compact(DyingStore(tmp_path, changes), clock, max_bytes=2500)
    except KeyboardInterrupt:
        # The lease, two daily files and their records, four segments, and the end of the lease.
        assert changes < 10
    assert read_segments(str(tmp_path)) == before
    clock.advance(LEASE_S)
    compact(store, clock)
    assert (read_segments(str(tmp_path)), store.names("segments")) == (before, [])


@pytest.mark.mutant
def test_the_dying_job_finds_a_reader_that_ignores_what_was_replaced(tmp_path, monkeypatch):
    """If a reader ignored the names of replaced segments, events would count twice."""
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    put(store, clock, [EventFactory().observation(seq=1)])
    before = read_segments(str(tmp_path))
    clock.advance(DAY_S)
    with pytest.raises(KeyboardInterrupt):
        compact(DyingStore(tmp_path, 3), clock)
    monkeypatch.setattr(daily_parquet, "replaced_segments", lambda file: [])
    assert read_segments(str(tmp_path)) != before


def test_a_job_reads_no_daily_files_of_finished_days(tmp_path):
    """To finish an earlier job only daily files of days with segments are read."""
    store, clock, make = LocalObjectStore(tmp_path), FakeClock(), EventFactory()
    for seq in range(1, 4):
        put(store, clock, [make.observation(seq=seq)])
        clock.advance(DAY_S)
        compact(store, clock)
    put(store, clock, [make.observation(seq=4)])
    clock.advance(DAY_S)
    read: list[str] = []
    store.get = lambda name: read.append(name) or LocalObjectStore.get(store, name)  # type: ignore[method-assign]
    assert compact(store, clock).segments == 1
    assert [name for name in read if name.startswith("daily")] == []
    old = store.names("daily")[0]
    store.put(
        daily_parquet.replaced_segments(daily_parquet.open_file(LocalObjectStore.get(store, old)))[
            0
        ],
        pack([]),
    )
    assert compact(store, clock).segments == 0
    assert ([name for name in read if name.startswith("daily")], store.names("segments")) == (
        [old],
        [],
    )


def test_today_is_left_alone(tmp_path):
    """The segments of the current day stay."""
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    put(store, clock, [EventFactory().observation(seq=1)])
    assert compact(store, clock).segments == 0
    assert len(store.names("segments")) == 1


def test_a_damaged_daily_file_is_named(tmp_path):
    """A daily file that is cut off, or has other columns, raises an EventError with its name."""
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    put(store, clock, [EventFactory().observation(seq=1)])
    clock.advance(DAY_S)
    compact(store, clock)
    [name] = store.names("daily")
    for data in (
        store.get(name)[:-9],
        b"",
        daily_parquet.to_bytes(
            daily_parquet.open_file(store.get(name)).read().drop_columns("times")
        ),
    ):
        store.put(name, data)
        with pytest.raises(EventError, match=name):
            read_segments(str(tmp_path))


def test_an_object_store_is_compacted_like_a_folder(bucket):
    """Behind an S3 interface the log is the same before and after, too."""
    store, clock = open_store(bucket), FakeClock()
    events = story(random.Random(0))
    for start in range(0, len(events), 9):
        put(store, clock, events[start : start + 9])
    before = read_segments(bucket)
    clock.advance(DAY_S)
    assert compact(store, clock).files == 1
    assert (read_segments(bucket), store.names("segments")) == (before, [])


def test_a_daily_file_is_limited_by_the_memory_of_its_events(tmp_path):
    """Twenty slates of 800 slots, though small when compressed, need four files, and twenty of two
    slots one.
    """
    slate = [wire.Slot(f"{rank:x}", rank, False, 1.0, 1.0) for rank in range(800)]
    for name, fields, files in (("small", {}, 1), ("large", {"slate": slate}, 4)):
        store, clock, make = LocalObjectStore(tmp_path / name), FakeClock(), EventFactory()
        for seq in range(1, 21):
            put(store, clock, [make.decision(seq=seq, **fields)])
        clock.advance(DAY_S)
        done = compact(store, clock, max_bytes=1_000_000)
        assert (done.files, done.events, store.names("segments")) == (files, 20, [])
