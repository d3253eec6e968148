"""Reading a log in partitions gives the same as reading it at once, however little fits into
memory.
"""

from __future__ import annotations

import random
from collections import Counter
from itertools import chain
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling import Engine
from sanderling.errors import EventError
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling_trainer.event_log import partitions
from sanderling_trainer.event_log.examples import examples_of
from sanderling_trainer.event_log.merge_examples import merge_examples
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.event_log.partitions import Partitions
from sanderling_trainer.event_log.reader import (
    EventLog,
    read_events,
    read_partitions,
    read_segments,
)
from sanderling_trainer.event_log.segment_format import encode_line, new_file_name, pack
from sanderling_trainer.event_log.summary import summarize
from sanderling_trainer.jobs.compact import compact
from sanderling_trainer.jobs.erase import erase
from tests.support.bundles import KINDS, TEXT, write_bundle
from tests.support.engines import stored
from tests.support.fakes import EventFactory, FakeClock, FakeEntropy

pytestmark = pytest.mark.lab

IDS = [f"item-{row}" for row in range(50)]
DAY_S = 86_400


def put(store: LocalObjectStore, clock: FakeClock, events: list[wire.Event]) -> None:
    store.put(
        new_file_name("segments", clock),
        pack([encode_line(codec.encode(event), clock.wall_ms(), None) for event in events]),
    )


def story(rng: random.Random) -> list[wire.Event]:
    """Events of six installs, with gaps, repetitions, numbers used twice, ids of others, and
    losses.
    """
    events: list[wire.Event] = []
    for number in range(6):
        install = rng.randbytes(16).hex()
        make = EventFactory(install, 1000 * number + 1)
        events += [make.observation(seq=seq) for seq in range(1, 12) if rng.random() < 0.9]
        events += [make.decision(seq=12), make.observation(seq=rng.choice([12, 13]))]
        events.append(make.observation(seq=14, id=f"{rng.choice([1, 1001]):032x}", item="another"))
        events.append(
            wire.Loss(
                f"{1000 * number + 900:032x}",
                install,
                15,
                wire.ClockReading(0, 0, "b" * 32),
                "full",
                decisions=1,
            )
        )
    events += rng.choices(events, k=20)
    rng.shuffle(events)
    return events


@settings(max_examples=12, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 200_000), st.sampled_from([1, 500, 10**6]))
def test_the_partitions_make_the_whole_log(
    tmp_path_factory, rng: random.Random, max_bytes: int, buffer_bytes: int
):
    """Each install is in one partition with all its events; counts, times and digest are those of
    the whole log.
    """
    store, clock, events = (
        LocalObjectStore(tmp_path_factory.mktemp("parts")),
        FakeClock(),
        story(rng),
    )
    while events:
        cut = rng.randint(1, 40)
        put(store, clock, events[:cut])
        events = events[cut:]
        clock.advance(rng.choice([1, DAY_S]))
        if rng.random() < 0.2:
            compact(store, clock)
    whole = read_segments(str(store.root))
    with mock.patch.object(partitions, "BUFFER_BYTES", buffer_bytes):
        logs = list(read_partitions(str(store.root), max_bytes))
    assert len(logs) == 1 or read_events(store).memory_bytes > max_bytes
    assert Counter(key for log in logs for key in log.events) == dict.fromkeys(whole.events, 1)
    assert {key: events for log in logs for key, events in log.events.items()} == whole.events
    assert sorted(
        (loss for log in logs for loss in log.losses), key=lambda loss: loss.id
    ) == sorted(whole.losses, key=lambda loss: loss.id)
    assert summarize(logs) == summarize([whole])
    assert summarize(logs).sha256() == summarize([whole]).sha256()


def of_install(install: int, number: int, **fields) -> bytes:
    return codec.encode(
        EventFactory(f"{install:032x}", 1000 * number + 1).decision(seq=1 + number, **fields)
    )


@settings(max_examples=12)
@given(
    st.lists(st.integers(0, 127).map(lambda bits: 2**bits), min_size=1, max_size=8, unique=True),
    st.integers(0, 9),
)
def test_a_range_that_is_too_large_is_split_again(installs: list[int], close: int):
    """However close the ids of installs are, a partition is small or of one install; partitions are
    in order.
    """
    with Partitions(max_bytes := 8000) as partitioned:
        for number in range(5):
            for install in [*installs, 2**100 + close]:
                partitioned.add(of_install(install, number), 1, 1)
        parts = list(partitioned)
    names = [sorted({received.event.install for received in part}) for part in parts]
    assert all(
        part.memory_bytes <= max_bytes or len(name) == 1
        for part, name in zip(parts, names, strict=True)
    )
    assert [*chain(*names)] == [
        f"{install:032x}" for install in sorted({*installs, 2**100 + close})
    ]
    assert sum(len(list(part)) for part in parts) == 5 * sum(map(len, names))


def test_the_limit_is_the_memory_and_not_the_number_of_events():
    """Slates of 800 slots reach the limit a hundred times earlier than slates of two."""
    slate = [wire.Slot(f"{rank:x}", rank, False, 1.0, 1.0) for rank in range(800)]
    small, large = Partitions(10**6), Partitions(10**6)
    for number in range(20):
        small.add(of_install(number * 2**120, number), 1, 1)
        large.add(of_install(number * 2**120, number, slate=slate), 1, 1)
    with small, large:
        assert [len(list(part)) for part in small] == [20]
        assert max(part.memory_bytes for part in large) <= 10**6


@pytest.fixture
def shops(tmp_path) -> LocalObjectStore:
    """The events of five engines, with slates of different lengths, and contexts of which two are
    equal.
    """
    write_bundle(tmp_path / "bundle")
    store = LocalObjectStore(tmp_path / "store")
    for number, weather in enumerate(["rain", "sun", "rain", "snow", ""]):
        options = {"share_context": True, "clock": FakeClock(), "entropy": FakeEntropy(number)}
        state = tmp_path / f"state{number}"
        with Engine.open(tmp_path / "bundle", state, **options) as engine:
            for user in ("anna", "ben"):
                slate = engine.recommend(user, k=2 + number, context=weather)
                engine.reward_all(slate, {slate[0]: -1.0, slate[1]: 1.0})
                engine.recommend(user, k=9)
            put(store, FakeClock(), stored(engine))
    return store


@pytest.mark.parametrize("max_bytes", [0, 20_000, 10**6])
def test_merged_examples_are_those_of_the_whole_log(shops, max_bytes):
    """Histories, decisions, contexts and the counts of dropped decisions are the same, slates of
    any length included.
    """
    whole = examples_of(read_segments(str(shops.root)), IDS, KINDS, TEXT)
    merged = merge_examples(
        [examples_of(log, IDS, KINDS, TEXT) for log in read_partitions(str(shops.root), max_bytes)]
    )
    assert (len(whole.decisions), whole.decisions.items.shape[1], len(whole.contexts)) == (10, 6, 3)
    for name, column in vars(whole.decisions).items():
        np.testing.assert_array_equal(getattr(merged.decisions, name), column, err_msg=name)
        assert getattr(merged.decisions, name).dtype == column.dtype
    for mine, theirs in zip(merged.histories, whole.histories, strict=True):
        np.testing.assert_equal(vars(mine), vars(theirs))
    np.testing.assert_array_equal(merged.contexts, whole.contexts)
    assert merged.dropped == whole.dropped == {"no outcome": 10}


@pytest.mark.parametrize("days_before", [1, 50, 20_000])
def test_a_few_wrong_clocks_do_not_decide_when_a_log_begins(days_before):
    """A log begins on its first day without the earliest 1 % of events."""
    now = 1_750_000_000_000
    today = now - now % (1000 * DAY_S)
    honest = EventLog(time={f"{i:032x}": now + i for i in range(198)})
    wrong = EventLog(time={"e" * 32: now - 1000 * DAY_S * days_before, "f" * 32: 0})
    for logs in ([honest, wrong], [wrong, honest]):
        assert summarize(logs).earliest == today
    assert summarize([wrong]).earliest == 0
    assert summarize([]).earliest == summarize([]).latest == 0


def test_erased_installs_are_in_no_partition(shops):
    """No event of an erased install is read, also when lines go through temporary files."""
    install = next(iter(read_segments(str(shops.root)).events))[0]
    erase(shops, install, FakeClock(), pause=lambda seconds: None)
    assert install not in {
        name for log in read_partitions(str(shops.root), 1) for name, _ in log.events
    }


@pytest.mark.parametrize("event", [b"{}", b'{"install":"x"}', b"[" * 5000])
def test_a_line_without_an_install_raises_with_its_file(tmp_path, event):
    """An invalid event raises an error with the file's name, in memory or in temporary files."""
    store = LocalObjectStore(tmp_path)
    put(
        store,
        FakeClock(),
        [EventFactory().observation(seq=1), EventFactory(start=5).observation(seq=2)],
    )
    name = "segments/9999-01-01/last.jsonl.zst"
    store.put(name, pack([b'{"received_at":1,"sent_at":1,"event":%b}' % event]))
    for max_bytes in (0, 10**6):
        with pytest.raises(EventError, match=r"last\.jsonl\.zst"):
            list(read_partitions(str(tmp_path), max_bytes))
