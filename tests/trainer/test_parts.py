"""Reading a log in parts gives what reading it at once gives, however little fits into memory."""

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
from sanderling_trainer.event_log.merge_examples import joined
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.event_log.partitions import Parts
from sanderling_trainer.event_log.reader import EventLog, gather, read_parts, read_segments
from sanderling_trainer.event_log.segment_format import line, new_name, pack
from sanderling_trainer.event_log.summary import facts_of
from sanderling_trainer.jobs.compact import compact
from sanderling_trainer.jobs.erase import erase
from tests.support.bundles import KINDS, TEXT, write_bundle
from tests.support.engines import outbox_of
from tests.support.fakes import EventFactory, FakeClock, FakeEntropy

pytestmark = pytest.mark.lab

IDS = [f"item-{row}" for row in range(50)]
DAY_S = 86_400


def put(store: LocalObjectStore, clock: FakeClock, events: list[wire.Event]) -> None:
    store.put(
        new_name("segments", clock),
        pack([line(codec.encode(event), clock.wall_ms(), None) for event in events]),
    )


def story(rng: random.Random) -> list[wire.Event]:
    """Events of six installs, with gaps, repetitions, numbers used twice, ids of others, and losses."""
    made: list[wire.Event] = []
    for at in range(6):
        install = rng.randbytes(16).hex()
        make = EventFactory(install, 1000 * at + 1)
        made += [make.observation(seq=seq) for seq in range(1, 12) if rng.random() < 0.9]
        made += [make.decision(seq=12), make.observation(seq=rng.choice([12, 13]))]
        made.append(make.observation(seq=14, id=f"{rng.choice([1, 1001]):032x}", item="another"))
        made.append(
            wire.Loss(
                f"{1000 * at + 900:032x}",
                install,
                15,
                wire.Clock(0, 0, "b" * 32),
                "full",
                decisions=1,
            )
        )
    made += rng.choices(made, k=20)
    rng.shuffle(made)
    return made


@settings(max_examples=12, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 200_000), st.sampled_from([1, 500, 10**6]))
def test_the_parts_make_the_whole(tmp_path_factory, rng: random.Random, most: int, buffered: int):
    """Each install is in one part with all that it has; sums, times and the digest are the whole log's."""
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
    whole = read_segments(str(store._root))
    with mock.patch.object(partitions, "BUFFER_BYTES", buffered):
        found = list(read_parts(str(store._root), most))
    assert len(found) == 1 or gather(store).size > most
    assert Counter(key for log in found for key in log.events) == dict.fromkeys(whole.events, 1)
    assert {key: events for log in found for key, events in log.events.items()} == whole.events
    assert sorted(
        (loss for log in found for loss in log.losses), key=lambda loss: loss.id
    ) == sorted(whole.losses, key=lambda loss: loss.id)
    assert facts_of(found) == facts_of([whole])
    assert facts_of(found).sha256() == facts_of([whole]).sha256()


def of_install(install: int, at: int, **fields) -> bytes:
    return codec.encode(
        EventFactory(f"{install:032x}", 1000 * at + 1).decision(seq=1 + at, **fields)
    )


@settings(max_examples=12)
@given(
    st.lists(st.integers(0, 127).map(lambda bits: 2**bits), min_size=1, max_size=8, unique=True),
    st.integers(0, 9),
)
def test_a_range_that_is_too_large_is_split_on(installs: list[int], close: int):
    """However alike the names of installs are, a part is small or one install's, and the parts are in their order."""
    with Parts(most_bytes := 8000) as lot:
        for at in range(5):
            for install in [*installs, 2**100 + close]:
                lot.add(of_install(install, at), 1, 1)
        found = list(lot)
    names = [sorted({seen.event.install for seen in part}) for part in found]
    assert all(
        part.size <= most_bytes or len(name) == 1 for part, name in zip(found, names, strict=True)
    )
    assert [*chain(*names)] == [
        f"{install:032x}" for install in sorted({*installs, 2**100 + close})
    ]
    assert sum(len(list(part)) for part in found) == 5 * sum(map(len, names))


def test_what_an_event_takes_counts_and_not_how_many_there_are():
    """Slates of 800 slots reach the bound a hundred times earlier than those of two, for which 60 kB are 200 kB."""
    slate = [wire.Slot(f"{rank:x}", rank, False, 1.0, 1.0) for rank in range(800)]
    small, large = Parts(10**6), Parts(10**6)
    for at in range(20):
        small.add(of_install(at * 2**120, at), 1, 1)
        large.add(of_install(at * 2**120, at, slate=slate), 1, 1)
    with small, large:
        assert [len(list(part)) for part in small] == [20]
        assert max(part.size for part in large) <= 10**6


@pytest.fixture
def shops(tmp_path) -> LocalObjectStore:
    """The events of five real engines, with slates of their own lengths, and contexts of which two are the same."""
    write_bundle(tmp_path / "bundle")
    store = LocalObjectStore(tmp_path / "store")
    for at, weather in enumerate(["rain", "sun", "rain", "snow", ""]):
        ways = {"share_context": True, "clock": FakeClock(), "entropy": FakeEntropy(at)}
        with Engine.open(tmp_path / "bundle", tmp_path / f"state{at}", **ways) as engine:
            for user in ("anna", "ben"):
                slate = engine.recommend(user, k=2 + at, context=weather)
                engine.reward_all(slate, {slate[0]: -1.0, slate[1]: 1.0})
                engine.recommend(user, k=9)
            outbox_of(engine).put_durable([])
            put(
                store,
                FakeClock(),
                [codec.decode(row.line) for row in outbox_of(engine).oldest(100, 1 << 20)],
            )
    return store


@pytest.mark.parametrize("most", [0, 20_000, 10**6])
def test_examples_of_the_parts_are_those_of_the_whole(shops, most):
    """Histories, decisions, contexts and what was dropped are the same arrays, slates of different lengths included."""
    whole = examples_of(read_segments(str(shops._root)), IDS, KINDS, TEXT)
    found = joined(
        [examples_of(log, IDS, KINDS, TEXT) for log in read_parts(str(shops._root), most)]
    )
    assert (len(whole.decisions), whole.decisions.items.shape[1], len(whole.contexts)) == (10, 6, 3)
    for name, column in vars(whole.decisions).items():
        np.testing.assert_array_equal(getattr(found.decisions, name), column, err_msg=name)
        assert getattr(found.decisions, name).dtype == column.dtype
    for mine, theirs in zip(found.histories, whole.histories, strict=True):
        np.testing.assert_equal(vars(mine), vars(theirs))
    np.testing.assert_array_equal(found.contexts, whole.contexts)
    assert found.dropped == whole.dropped == {"no outcome": 10}


@pytest.mark.parametrize("days_before", [1, 50, 20_000])
def test_a_few_false_clocks_do_not_say_when_a_log_begins(days_before):
    """A log begins on the day from which on all but one in a hundred events are, in however many parts they come."""
    now = 1_750_000_000_000
    today = now - now % (1000 * DAY_S)
    honest = EventLog(time={f"{at:032x}": now + at for at in range(198)})
    false = EventLog(time={"e" * 32: now - 1000 * DAY_S * days_before, "f" * 32: 0})
    for logs in ([honest, false], [false, honest]):
        assert facts_of(logs).earliest == today
    assert facts_of([false]).earliest == 0
    assert facts_of([]).earliest == facts_of([]).latest == 0


def test_what_was_erased_is_in_no_part(shops):
    """Of an erased install nothing is read, set down on disk or not."""
    install = next(iter(read_segments(str(shops._root)).events))[0]
    erase(shops, install, FakeClock(), pause=lambda seconds: None)
    assert install not in {
        name for log in read_parts(str(shops._root), 1) for name, _ in log.events
    }


@pytest.mark.parametrize("event", [b"{}", b'{"install":"x"}', b"[" * 5000])
def test_a_line_that_names_no_install_names_its_file(tmp_path, event):
    """Set down or kept, what is no event is an error that names the file."""
    store = LocalObjectStore(tmp_path)
    put(
        store,
        FakeClock(),
        [EventFactory().observation(seq=1), EventFactory(start=5).observation(seq=2)],
    )
    name = "segments/9999-01-01/last.jsonl.zst"
    store.put(name, pack([b'{"received_at":1,"sent_at":1,"event":%b}' % event]))
    for most in (0, 10**6):
        with pytest.raises(EventError, match=r"last\.jsonl\.zst"):
            list(read_parts(str(tmp_path), most))
