"""One job at a time works on a store, on a folder and on an object store, and a dead one does not block for ever."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from sanderling.events import codec
from sanderling_trainer.event_log.object_store import (
    JOB_TIMEOUT,
    LocalObjectStore,
    ObjectStore,
    open_store,
)
from sanderling_trainer.jobs import compact as compaction
from sanderling_trainer.jobs.compact import compact
from sanderling_trainer.jobs.erase import erase
from sanderling_trainer.jobs.lease import FOLDER, KEPT_S, LEASE_S, BusyError, Lease, only_job
from tests.support.fakes import EventFactory, FakeClock
from tests.support.stores import DAY_S, GONE, STAYS, Interrupted, holding, put

pytestmark = pytest.mark.lab


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path) -> ObjectStore:
    return open_store(
        str(tmp_path) if request.param == "folder" else request.getfixturevalue("bucket")
    )


def test_a_second_job_is_told_who_works_and_what_to_do(store):
    """While one job works another is refused, by name, time and advice; when it has ended the next may begin."""
    clock = FakeClock()
    with only_job(store, clock, "erase", "host-1, process 7"):
        with pytest.raises(BusyError) as refused, only_job(store, clock, "compact"):
            pass
        text = str(refused.value)
        assert "`erase` of host-1, process 7, begun 2025-06-15 15:06:40 UTC" in text
        assert "until 2025-06-15 15:36:40 UTC" in text
        assert "start again" in text
    with only_job(store, clock, "compact"):
        pass
    assert len(store.names(FOLDER)) == 1


def test_a_dead_job_blocks_no_longer_than_its_lease(store):
    """After the time that it said the next job takes over, and one that was only asleep is refused its next change."""
    clock = FakeClock()
    sleeper = Lease(store, clock, "compact", "asleep")
    sleeper.take()
    clock.advance(LEASE_S - 1)
    with pytest.raises(BusyError), only_job(store, clock, "erase"):
        pass
    clock.advance(1)
    with only_job(store, clock, "erase"), pytest.raises(BusyError, match="erase"):
        sleeper.keep()


def test_a_job_that_works_keeps_its_lease(store):
    """A job of many hours that goes on changing something is never taken over."""
    clock = FakeClock()
    with only_job(store, clock, "compact") as lease:
        for _ in range(10):
            clock.advance(LEASE_S * 0.9)
            lease.keep()
            with pytest.raises(BusyError), only_job(store, clock, "erase"):
                pass


@pytest.mark.parametrize("worked_s", [0, LEASE_S - KEPT_S, LEASE_S - 1])
def test_no_request_outlives_the_lease(tmp_path, worked_s):
    """A file that is written in two tries, as long as both may take, is there before another job may begin."""
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    with only_job(store, clock, "compact") as lease:
        clock.advance(worked_s)
        lease.keep()
        clock.advance(2 * JOB_TIMEOUT.total_seconds())
        with pytest.raises(BusyError), only_job(store, clock, "erase"):
            pass


@pytest.mark.parametrize("dead", [False, True])
def test_of_many_jobs_at_once_one_begins(store, dead):
    """Twenty jobs start at the same moment, after none or after one that died: at most one of them works."""
    clock = FakeClock()
    if dead:
        Lease(store, clock, "compact", "dead").take()
        clock.advance(LEASE_S)
    assert race(store, clock) == 1


def race(store: ObjectStore, clock: FakeClock) -> int:
    """Return how many of twenty jobs begin."""
    together = Barrier(20)

    def begin(number: int) -> bool:
        together.wait()
        try:
            Lease(store, clock, "compact", str(number)).take()
        except BusyError:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        return sum(pool.map(begin, range(20)))


def test_the_race_finds_a_store_that_creates_over_what_is_there(tmp_path, monkeypatch):
    """With a store whose `create` is a `put` several jobs begin."""
    monkeypatch.setattr(LocalObjectStore, "create", LocalObjectStore.put)
    assert race(LocalObjectStore(tmp_path), FakeClock()) > 1


def tried(act) -> bool:
    try:
        act()
    except BusyError:
        return False
    return True


def overtaken(root: Path, at: int, ends: bool) -> int:
    """Let a job be interrupted in its beginning by others; return how many believe in the end that they may work."""
    clock = FakeClock()
    Lease(LocalObjectStore(root), clock, "compact", "dead").take()
    clock.advance(LEASE_S)
    took: list[bool] = []

    def act() -> None:
        other = Lease(LocalObjectStore(root), clock, "compact", "other")
        took.append(tried(other.take))
        if ends and took[0]:
            other.release()
            Lease(LocalObjectStore(root), clock, "compact", "third").take()

    first = Lease(Interrupted(root, at, act), clock, "compact", "first")
    return sum([tried(first.take), *took])


def met(root: Path, at: int, wakes: bool) -> int:
    """Let one who sleeps past its lease and one who takes over meet, the first to act interrupted by the other."""
    clock, went_on = FakeClock(), []

    def act() -> None:
        went_on.append(tried(late))

    sleeper_store = LocalObjectStore(root) if wakes else Interrupted(root, TAKING + at, act)
    other_store = Interrupted(root, at, act) if wakes else LocalObjectStore(root)
    sleeper = Lease(sleeper_store, clock, "compact", "asleep")
    sleeper.take()
    clock.advance(LEASE_S)
    other = Lease(other_store, clock, "erase", "other")
    early, late = (other.take, sleeper.keep) if wakes else (sleeper.keep, other.take)
    return sum([tried(early), *went_on])


TAKING = 4  # operations by which a job begins on an empty store
STEPS = range(1, 10)


@pytest.mark.parametrize("ends", [False, True])
def test_who_is_overtaken_at_any_moment_steps_back(tmp_path, ends):
    """Between any two steps of one job that begins another begins, or begins and ends: never do both go on."""
    assert max(overtaken(tmp_path / str(at), at, ends) for at in STEPS) == 1


@pytest.mark.parametrize("wakes", [False, True])
def test_who_renews_late_and_who_takes_over_do_not_miss_each_other(tmp_path, wakes):
    """Between any two steps of one who takes over a sleeper wakes, or the other way round: never do both go on."""
    assert max(met(tmp_path / str(at), at, wakes) for at in STEPS) == 1


def test_interruptions_find_a_lease_that_does_not_look_again(tmp_path, monkeypatch):
    """Without the look at the highest number after writing, or at the old lease after creating, two jobs go on."""
    check_ended = Lease._check_ended
    before_creating = lambda self, number: None if self._number else check_ended(self, number)  # noqa: E731
    for number, (name, broken) in enumerate(
        [("check", lambda self: None), ("_check_ended", before_creating)]
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Lease, name, broken)
            root = tmp_path / str(number)
            assert (
                max(
                    met(root / f"{at}-{wakes}", at, wakes)
                    for at in STEPS
                    for wakes in (False, True)
                )
                == 2
            )


def test_a_damaged_lease_is_named(tmp_path):
    """A lease without its bytes stops jobs with its name and what to do; a file of another name does not."""
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    store.put(f"{FOLDER}/README", b"not a lease")
    with only_job(store, clock, "compact"):
        pass
    store.put(f"{FOLDER}/000000000002", b"")
    with (
        pytest.raises(BusyError, match=r"jobs/000000000002.*remove the file"),
        only_job(store, clock, "compact"),
    ):
        pass
    store.delete(f"{FOLDER}/000000000002")
    with only_job(store, clock, "compact"):
        pass


def test_erasing_refuses_a_compaction_in_its_pause(tmp_path):
    """A compaction that starts while an erasure waits is refused, and no byte of the id is left."""
    store, clock = prepared(tmp_path)
    refused = []

    def pause(seconds: float) -> None:
        refused.append(not tried(lambda: compact(store, clock)))
        clock.advance(seconds)

    erase(store, GONE, clock, pause)
    assert refused == [True]
    assert holding(tmp_path, GONE) == []


def test_without_leases_a_compaction_brings_back_what_was_erased(tmp_path, monkeypatch):
    """Side by side, a compaction that had read its lines writes them after the last pass: what leases are for."""
    monkeypatch.setattr(Lease, "take", lambda self: None)
    monkeypatch.setattr(Lease, "keep", lambda self: None)
    monkeypatch.setattr(Lease, "check", lambda self: None)
    monkeypatch.setattr(Lease, "create", lambda self, name, data: self._store.put(name, data))
    monkeypatch.setattr(Lease, "release", lambda self: None)
    store, clock = prepared(tmp_path)
    replace = compaction._replace

    def late(*arguments) -> None:
        erase(store, GONE, clock, clock.advance)
        replace(*arguments)

    monkeypatch.setattr(compaction, "_replace", late)
    compact(store, clock)
    assert holding(tmp_path, GONE)


def test_a_job_that_fails_as_it_begins_leaves_the_store_free(tmp_path):
    """Where the old lease cannot be removed the job ends with that error, and the next need not wait for its lease."""

    class Fails(LocalObjectStore):
        def delete(self, name: str) -> None:
            raise OSError("the store fails")

    clock = FakeClock()
    with only_job(LocalObjectStore(tmp_path), clock, "compact"):
        pass
    with (
        pytest.raises(OSError, match="the store fails"),
        only_job(Fails(tmp_path), clock, "compact"),
    ):
        pass
    with only_job(LocalObjectStore(tmp_path), clock, "erase"):
        pass


class Slow(LocalObjectStore):
    """Takes longer than a lease to read its first segment, and meanwhile another job takes over."""

    def __init__(self, root: Path, clock: FakeClock) -> None:
        super().__init__(root)
        self.clock, self.changes = clock, 0

    def get(self, name: str) -> bytes:
        if name.startswith("segments"):
            self.clock.advance(LEASE_S)
            Lease(LocalObjectStore(self._root), self.clock, "erase", "another").take()
            self.changes = 0
        return super().get(name)

    def put(self, name: str, data: bytes) -> None:
        self.changes += not name.startswith(FOLDER)
        super().put(name, data)

    def create(self, name: str, data: bytes) -> None:
        self.changes += not name.startswith(FOLDER)
        super().create(name, data)

    def delete(self, name: str) -> None:
        self.changes += not name.startswith(FOLDER)
        super().delete(name)


JOBS = {"compact": compact, "erase": lambda store, clock: erase(store, GONE, clock, clock.advance)}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_job_that_slept_changes_nothing_more(tmp_path, job):
    """A job that was taken over while it read ends with the name of the other, and has changed no file since."""
    _, clock = prepared(tmp_path)
    store = Slow(tmp_path, clock)
    with pytest.raises(BusyError, match="another"):
        job(store, clock)
    assert store.changes == 0


class Reading(LocalObjectStore):
    """Takes a few minutes for each file, and another job tries to begin each time."""

    def __init__(self, root: Path, clock: FakeClock) -> None:
        super().__init__(root)
        self.clock, self.began = clock, []

    def get(self, name: str) -> bytes:
        if not name.startswith(FOLDER):
            self.clock.advance(240)
            self.began.append(
                tried(Lease(LocalObjectStore(self._root), self.clock, "erase", "another").take)
            )
        return super().get(name)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_job_that_reads_for_hours_keeps_its_lease(tmp_path, job):
    """A job that reads for longer than a lease, and changes nothing meanwhile, is not taken over and ends well."""
    store, clock = prepared(tmp_path)
    for seq in range(20):
        put(
            store,
            clock,
            codec.encode(EventFactory(STAYS, start=100 + seq).observation(seq=1 + seq)),
        )
    clock.advance(DAY_S)
    slow = Reading(tmp_path, clock)
    job(slow, clock)
    assert len(slow.began) * 240 > LEASE_S
    assert not any(slow.began)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_without_looking_a_job_that_slept_goes_on(tmp_path, monkeypatch, job):
    """A job that does not ask before its changes makes them beside the other: the same count finds it."""
    monkeypatch.setattr(Lease, "keep", lambda self: None)
    monkeypatch.setattr(Lease, "check", lambda self: None)
    _, clock = prepared(tmp_path)
    store = Slow(tmp_path, clock)
    job(store, clock)
    assert store.changes


def prepared(root: Path) -> tuple[LocalObjectStore, FakeClock]:
    """A store with one event of the install that is to go, a day ago."""
    store, clock = LocalObjectStore(root), FakeClock()
    put(store, clock, codec.encode(EventFactory(GONE).observation(seq=1)))
    clock.advance(DAY_S)
    return store, clock
