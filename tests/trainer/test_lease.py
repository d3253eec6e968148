"""One job at a time works on a store, and a dead job does not block it for ever."""

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
)
from sanderling_trainer.jobs.compact import compact
from sanderling_trainer.jobs.erase import erase
from sanderling_trainer.jobs.lease import (
    FOLDER,
    LEASE_S,
    MIN_REMAINING_S,
    BusyError,
    Lease,
    exclusive_job,
)
from tests.support.fakes import EventFactory, FakeClock
from tests.support.stores import DAY_S, GONE, STAYS, Interrupted, holding, put

pytestmark = pytest.mark.lab


def test_a_second_job_fails_with_who_works_and_what_to_do(store):
    """While one job works a second one fails with its name, times and advice; after its end the
    next one runs.
    """
    clock = FakeClock()
    with exclusive_job(store, clock, "erase", "host-1, process 7"):
        with pytest.raises(BusyError) as refused, exclusive_job(store, clock, "compact"):
            pass
        text = str(refused.value)
        assert "`erase` of host-1, process 7, begun 2025-06-15 15:06:40 UTC" in text
        assert "lasts until 2025-06-15 15:36:40 UTC" in text
        assert "start again" in text
    with exclusive_job(store, clock, "compact"):
        pass
    assert len(store.names(FOLDER)) == 1


def test_a_dead_job_blocks_no_longer_than_its_lease(store):
    """When the lease has expired the next job takes over, and one that was only asleep fails before
    its next change.
    """
    clock = FakeClock()
    sleeper = Lease(store, clock, "compact", "asleep")
    sleeper.acquire()
    clock.advance(LEASE_S - 1)
    with pytest.raises(BusyError), exclusive_job(store, clock, "erase"):
        pass
    clock.advance(1)
    with exclusive_job(store, clock, "erase"), pytest.raises(BusyError, match="erase"):
        sleeper.renew()


def test_a_job_that_works_keeps_its_lease(store):
    """A job of many hours that renews its lease is never taken over."""
    clock = FakeClock()
    with exclusive_job(store, clock, "compact") as lease:
        for _ in range(10):
            clock.advance(LEASE_S * 0.9)
            lease.renew()
            with pytest.raises(BusyError), exclusive_job(store, clock, "erase"):
                pass


@pytest.mark.parametrize("worked_s", [0, LEASE_S - MIN_REMAINING_S, LEASE_S - 1])
def test_no_request_outlives_the_lease(tmp_path, worked_s):
    """A file that needs two tries until their timeouts is written before another job can begin."""
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    with exclusive_job(store, clock, "compact") as lease:
        clock.advance(worked_s)
        lease.renew()
        clock.advance(2 * JOB_TIMEOUT.total_seconds())
        with pytest.raises(BusyError), exclusive_job(store, clock, "erase"):
            pass


@pytest.mark.parametrize("dead", [False, True])
def test_of_many_jobs_at_once_one_begins(store, dead):
    """Of twenty jobs that start at the same moment, first or after a dead one, one begins."""
    clock = FakeClock()
    if dead:
        Lease(store, clock, "compact", "dead").acquire()
        clock.advance(LEASE_S)
    assert race(store, clock) == 1


def race(store: ObjectStore, clock: FakeClock) -> int:
    """Return how many of twenty jobs begin."""
    barrier = Barrier(20)

    def begin(number: int) -> bool:
        barrier.wait()
        try:
            Lease(store, clock, "compact", str(number)).acquire()
        except BusyError:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        return sum(pool.map(begin, range(20)))


@pytest.mark.mutant
def test_the_race_finds_a_store_that_creates_over_what_is_there(tmp_path, monkeypatch):
    """With a store whose `create` is a `put` several jobs begin."""
    monkeypatch.setattr(LocalObjectStore, "create", LocalObjectStore.put)
    assert race(LocalObjectStore(tmp_path), FakeClock()) > 1


def succeeds(act) -> bool:
    """Return whether an action does not raise `BusyError`."""
    try:
        act()
    except BusyError:
        return False
    return True


def count_interrupted(root: Path, step: int, ends: bool) -> int:
    """Interrupt a job that begins by others; return how many of them begin."""
    clock = FakeClock()
    Lease(LocalObjectStore(root), clock, "compact", "dead").acquire()
    clock.advance(LEASE_S)
    began: list[bool] = []

    def act() -> None:
        other = Lease(LocalObjectStore(root), clock, "compact", "other")
        began.append(succeeds(other.acquire))
        if ends and began[0]:
            other.release()
            Lease(LocalObjectStore(root), clock, "compact", "third").acquire()

    first = Lease(Interrupted(root, step, act), clock, "compact", "first")
    return sum([succeeds(first.acquire), *began])


def count_holders(root: Path, step: int, wakes: bool) -> int:
    """Let a job that slept past its lease renew it while another takes over; return how many of
    them go on.

    The one that takes over is interrupted by the sleeper that wakes, or, without `wakes`, the other
    way round.
    """
    clock, holds = FakeClock(), []

    def act() -> None:
        holds.append(succeeds(late))

    sleeper_store = (
        LocalObjectStore(root) if wakes else Interrupted(root, ACQUIRE_STEPS + step, act)
    )
    other_store = Interrupted(root, step, act) if wakes else LocalObjectStore(root)
    sleeper = Lease(sleeper_store, clock, "compact", "asleep")
    sleeper.acquire()
    clock.advance(LEASE_S)
    other = Lease(other_store, clock, "erase", "other")
    first, late = (other.acquire, sleeper.renew) if wakes else (sleeper.renew, other.acquire)
    return sum([succeeds(first), *holds])


ACQUIRE_STEPS = 4  # operations on an empty store until a job holds the lease
STEPS = range(1, 10)


@pytest.mark.parametrize("ends", [False, True])
def test_of_two_jobs_that_begin_one_gives_up(tmp_path, ends):
    """Between any two steps of a job that begins another one begins, or begins and ends: one of
    them goes on.
    """
    assert max(count_interrupted(tmp_path / str(step), step, ends) for step in STEPS) == 1


@pytest.mark.parametrize("wakes", [False, True])
def test_a_late_renewal_and_a_takeover_see_each_other(tmp_path, wakes):
    """Between any two steps of a takeover a sleeper wakes, or the other way round: one of them goes
    on.
    """
    assert max(count_holders(tmp_path / str(step), step, wakes) for step in STEPS) == 1


@pytest.mark.mutant
def test_interruptions_find_a_lease_that_does_not_look_again(tmp_path, monkeypatch):
    """Without the check of the highest number after writing, or of the old lease after creating,
    two jobs go on.
    """
    # The two checks exist only for races between jobs: to leave one out, break it inside.
    check_ended = Lease._check_ended
    before_creating = lambda self, number: None if self._number else check_ended(self, number)  # noqa: E731
    for number, (name, broken) in enumerate(
        [("check_held", lambda self: None), ("_check_ended", before_creating)]
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Lease, name, broken)
            root = tmp_path / str(number)
            assert (
                max(
                    count_holders(root / f"{step}-{wakes}", step, wakes)
                    for step in STEPS
                    for wakes in (False, True)
                )
                == 2
            )


def test_a_damaged_lease_is_named(tmp_path):
    """An empty lease stops jobs with its name and what to do; a file with another name does not."""
    store, clock = LocalObjectStore(tmp_path), FakeClock()
    store.put(f"{FOLDER}/README", b"not a lease")
    with exclusive_job(store, clock, "compact"):
        pass
    store.put(f"{FOLDER}/000000000002", b"")
    with (
        pytest.raises(BusyError, match=r"jobs/000000000002.*remove the file"),
        exclusive_job(store, clock, "compact"),
    ):
        pass
    store.delete(f"{FOLDER}/000000000002")
    with exclusive_job(store, clock, "compact"):
        pass


def test_erasing_refuses_a_compaction_in_its_pause(tmp_path):
    """A compaction that starts while an erasure waits fails, and no byte of the id is left."""
    store, clock = prepared(tmp_path)
    refused = []

    def pause(seconds: float) -> None:
        refused.append(not succeeds(lambda: compact(store, clock)))
        clock.advance(seconds)

    erase(store, GONE, clock, pause)
    assert refused == [True]
    assert holding(tmp_path, GONE) == []


def test_without_leases_a_compaction_brings_back_what_was_erased(tmp_path, monkeypatch):
    """This is what leases are for: a compaction that has read lines writes them after the last pass
    of an erasure.
    """
    monkeypatch.setattr(Lease, "acquire", lambda self: None)
    monkeypatch.setattr(Lease, "renew", lambda self: None)
    monkeypatch.setattr(Lease, "check_held", lambda self: None)
    monkeypatch.setattr(Lease, "release", lambda self: None)
    store, clock = prepared(tmp_path)

    def create_late(self: Lease, name: str, data: bytes) -> None:
        erase(store, GONE, clock, clock.advance)
        store.put(name, data)

    monkeypatch.setattr(Lease, "create", create_late)
    compact(store, clock)
    assert holding(tmp_path, GONE)


def test_a_job_that_fails_as_it_begins_leaves_the_store_free(tmp_path):
    """If the old lease cannot be removed the job fails, and the next one need not wait for its
    lease.
    """

    class FailingStore(LocalObjectStore):
        def delete(self, name: str) -> None:
            raise OSError("the store fails")

    clock = FakeClock()
    with exclusive_job(LocalObjectStore(tmp_path), clock, "compact"):
        pass
    with (
        pytest.raises(OSError, match="the store fails"),
        exclusive_job(FailingStore(tmp_path), clock, "compact"),
    ):
        pass
    with exclusive_job(LocalObjectStore(tmp_path), clock, "erase"):
        pass


class SlowStore(LocalObjectStore):
    """Takes longer than a lease to read a segment, and meanwhile another job takes over; then
    counts changes.
    """

    def __init__(self, root: Path, clock: FakeClock) -> None:
        super().__init__(root)
        self.clock, self.changes = clock, 0

    def get(self, name: str) -> bytes:
        if name.startswith("segments"):
            self.clock.advance(LEASE_S)
            Lease(LocalObjectStore(self.root), self.clock, "erase", "another").acquire()
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
def test_a_job_that_was_taken_over_changes_nothing(tmp_path, job):
    """A job that was taken over while it read fails with the name of the other, and has changed no
    file since.
    """
    _, clock = prepared(tmp_path)
    store = SlowStore(tmp_path, clock)
    with pytest.raises(BusyError, match="another"):
        job(store, clock)
    assert store.changes == 0


class SlowReadStore(LocalObjectStore):
    """Takes four minutes to read a file, and lets another job try to begin each time."""

    def __init__(self, root: Path, clock: FakeClock) -> None:
        super().__init__(root)
        self.clock, self.began = clock, []

    def get(self, name: str) -> bytes:
        if not name.startswith(FOLDER):
            self.clock.advance(240)
            self.began.append(
                succeeds(Lease(LocalObjectStore(self.root), self.clock, "erase", "another").acquire)
            )
        return super().get(name)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_job_that_reads_for_hours_keeps_its_lease(tmp_path, job):
    """A job that only reads, for longer than a lease, is not taken over."""
    store, clock = prepared(tmp_path)
    for seq in range(20):
        put(
            store,
            clock,
            codec.encode(EventFactory(STAYS, start=100 + seq).observation(seq=1 + seq)),
        )
    clock.advance(DAY_S)
    slow = SlowReadStore(tmp_path, clock)
    job(slow, clock)
    assert len(slow.began) * 240 > LEASE_S
    assert not any(slow.began)


@pytest.mark.mutant
@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_without_checks_a_job_that_slept_goes_on(tmp_path, monkeypatch, job):
    """A job that does not check its lease makes changes beside the other one, and the count shows
    them.
    """
    monkeypatch.setattr(Lease, "renew", lambda self: None)
    monkeypatch.setattr(Lease, "check_held", lambda self: None)
    _, clock = prepared(tmp_path)
    store = SlowStore(tmp_path, clock)
    job(store, clock)
    assert store.changes


def prepared(root: Path) -> tuple[LocalObjectStore, FakeClock]:
    """Return a store with one event of the install to be erased, from yesterday, and the clock."""
    store, clock = LocalObjectStore(root), FakeClock()
    put(store, clock, codec.encode(EventFactory(GONE).observation(seq=1)))
    clock.advance(DAY_S)
    return store, clock
