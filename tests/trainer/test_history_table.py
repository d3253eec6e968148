"""The store's table of past steps gives the same histories as the events that it replaces."""

from __future__ import annotations

import random
from dataclasses import replace
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.errors import EventError
from sanderling.events import codec
from sanderling.events.schema import ClockReading, Event, Loss, StateReset
from sanderling_trainer.event_log import history_files, history_table
from sanderling_trainer.event_log.deduplication import PossibleTimes, ReceivedEvent
from sanderling_trainer.event_log.examples import examples_of
from sanderling_trainer.event_log.history_table import KnownHistory, rows_of
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.event_log.reader import EventLog, build_log
from sanderling_trainer.event_log.tombstones import tombstone_file
from sanderling_trainer.jobs.lease import LEASE_S, BusyError, Lease, exclusive_job
from sanderling_trainer.jobs.night_log import remember
from tests.support.fakes import EventFactory, FakeClock

pytestmark = pytest.mark.lab

IDS = ["red", "blue", "green"]
KINDS = ["view", "click"]
INSTALLS = ["a" * 32, "b" * 32, "c" * 32]
NOW = 1_760_000_000_000


def received(events: list[Event]) -> list[ReceivedEvent]:
    return [ReceivedEvent(event, codec.encode(event), NOW, NOW, 1) for event in events]


def story(rng: random.Random) -> list[Event]:
    """Events of three installs with two users each: steps, resets, decisions and losses."""
    events: list[Event] = []
    for number, install in enumerate(INSTALLS):
        make = EventFactory(install, 10_000 * number + 1)
        seq = 0
        for _ in range(rng.randint(1, 25)):
            seq += 1
            common = {"seq": seq, "user": rng.choice("de") * 32}
            item = rng.choice([*IDS, "unknown"])
            decision = make.decision(**common)
            clock = ClockReading(NOW - 1000 * rng.randint(0, 10**6), 0, "b" * 32)
            steps = [(rng.choice(IDS), "click") for _ in range(rng.randint(1, 3))]
            reset = StateReset(decision.id, install, clock=clock, steps=steps, **common)
            events.append(
                rng.choice(
                    [
                        make.observation(item=item, **common),
                        make.outcome(decision, updates_state=rng.random() < 0.5, **common),
                        decision,
                        reset,
                        loss(decision.id, install, seq),
                    ]
                )
            )
            if isinstance(events[-1], Loss):
                seq += 1
                events[-1] = loss(decision.id, install, seq)
    return events


def loss(id: str, install: str, seq: int) -> Loss:
    """Return the declaration that the event before it was dropped."""
    return Loss(id, install, seq, ClockReading(0, 0, "b" * 32), "full", decisions=1)


def histories(log: EventLog) -> dict:
    """Return what training sees of the state of each user, by the user."""
    found = examples_of(log, IDS, KINDS, 3)
    return {
        (found.installs[each.install], *each.seqs, *each.times): vars(replace(each, install=0))
        for each in found.histories
        if len(each)
    }


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_deleted_events_leave_the_same_histories(rng):
    """Whichever events are deleted once the table has them, histories are those of the whole log,
    no event is missing, and a later gap is found.
    """
    events = story(rng)
    cut = {install: rng.randint(0, 30) for install in INSTALLS}
    earlier = [event for event in events if event.seq <= cut[event.install]]
    first, second = build_log(received(earlier)), build_log(received(events))

    rows = [rows_of(first, {})]
    accounted = history_files.accounted_in(rows[0])
    assert accounted == first.last_seq
    rows.append(rows_of(second, accounted if rng.random() < 0.5 else {}))
    table = pa.concat_tables(rows)
    accounted = history_files.accounted_in(table)
    known = KnownHistory.of(table)

    left = [
        event
        for event in events
        if event.seq > accounted.get(event.install, 0) or rng.random() < 0.4
    ]
    log = build_log(received(left), accounted)
    # An install that the first log had a gap in, by an undeclared loss, is incomplete in both.
    assert log.missing <= second.missing
    restored = known.restored(log)
    with mock.patch.object(history_table, "INSTALLS_AT_ONCE", rng.choice([1, 2, 1000])):
        others = list(known.others({install for install, _ in log.events}))
    complete = set(second.last_seq)
    expected = {key: one for key, one in histories(second).items() if key[0] in complete}
    found = {key: one for part in (restored, *others) for key, one in histories(part).items()}
    found = {key: one for key, one in found.items() if key[0] in complete}
    assert found.keys() == expected.keys()
    for key, columns in expected.items():
        np.testing.assert_equal(found[key], columns)

    last = max(event.seq for event in events if event.install == INSTALLS[0])
    if INSTALLS[0] in complete:
        later = EventFactory(INSTALLS[0], 9_000).observation(seq=last + 2)
        assert build_log(received([*left, later]), accounted).missing == 1


def test_rows_count_once(tmp_path):
    """Files may repeat rows; an empty file, which a job leaves that took over, adds none."""
    make = EventFactory()
    log = build_log(received([make.observation(seq=1), make.observation(seq=2, item="blue")]))
    store = LocalObjectStore(tmp_path)
    for name in ("one", "two"):
        store.put(f"history/{name}.parquet", history_files.to_bytes(rows_of(log, {})))
    store.put("history/three.parquet", history_files.EMPTY)
    known = KnownHistory.of(history_files.read(store))
    assert known.accounted == history_files.accounted(store) == {make.install: 2}
    [others] = known.others(set())
    [history] = examples_of(others, IDS, KINDS, 3).histories
    assert (history.items.tolist(), history.seqs.tolist()) == ([0, 1], [1, 2])


def test_the_history_is_extended_under_the_lease(store):
    """In a folder and in a bucket rows are added, but those of an install erased meanwhile; not
    while another job works on the store.
    """
    clock = FakeClock()
    logs = [
        build_log(received([EventFactory(install).observation(seq=1)])) for install in INSTALLS[:2]
    ]
    rows = pa.concat_tables([rows_of(log, {}) for log in logs])
    with exclusive_job(store, clock, "compact"), pytest.raises(BusyError):
        remember(store, clock, rows)
    assert store.names("history") == []
    store.put(tombstone_file(INSTALLS[0]), b"")
    remember(store, clock, rows)
    remember(store, clock, rows.slice(0, 0))
    assert len(store.names("history")) == 1
    assert history_files.accounted(store) == {INSTALLS[1]: 1}


def test_a_late_write_of_a_dead_job_fails(tmp_path):
    """A job that takes over leaves an empty history file in the place of a pending one."""
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    lease = Lease(store, clock, "retrain", "a")
    lease.acquire()
    store.create = mock.Mock(side_effect=KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        lease.create("history/late.parquet", b"")
    store = LocalObjectStore(tmp_path)
    clock.advance(LEASE_S + 1)
    with exclusive_job(store, clock, "compact"):
        assert history_files.parse(store.get("history/late.parquet")).num_rows == 0
    with pytest.raises(FileExistsError):
        store.create("history/late.parquet", b"late")


def test_a_damaged_file_is_named(tmp_path):
    """What is no table, or another one, ends reading with the file's name."""
    store = LocalObjectStore(tmp_path)
    other = history_files.to_bytes(pa.table({"install": ["a"]}))
    for data in (b"not that", other):
        store.put("history/one.parquet", data)
        with pytest.raises(EventError, match=r"history/one\.parquet: expected"):
            history_files.read(store)


@pytest.mark.parametrize(
    ("wall", "received_at", "expected"),
    [
        (NOW - 1000, NOW, NOW - 1000),
        (NOW - 10**9, NOW, NOW),
        (NOW + 1000, NOW, NOW),
        (4 * NOW, 4 * NOW, NOW + 5),
    ],
)
def test_impossible_times_are_those_of_the_receipt(wall, received_at, expected):
    """Too old, later than the receipt, or received in the future: the event
    counts as received, at the latest a day from now."""
    event = EventFactory().observation(clock=ClockReading(wall, 0, "b" * 32))
    one = ReceivedEvent(event, b"", received_at, received_at, 1)
    possible = PossibleTimes(NOW - 10**8, NOW + 5)
    assert one.corrected_time(possible) == expected
