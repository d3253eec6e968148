"""A job that sleeps past its lease, at any of its steps, undoes nothing that another job did
meanwhile.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from sanderling.errors import EventError
from sanderling.events import codec
from sanderling_trainer.event_log import daily_parquet
from sanderling_trainer.event_log.object_store import LocalObjectStore, ObjectStore
from sanderling_trainer.event_log.reader import read_segments
from sanderling_trainer.jobs.compact import compact
from sanderling_trainer.jobs.erase import erase
from sanderling_trainer.jobs.lease import LEASE_S, BusyError, Lease
from tests.support.fakes import EventFactory, FakeClock
from tests.support.stores import GONE, STAYS, Interrupted, filled, holding, late, others, put

pytestmark = pytest.mark.lab

THIRD = "e3" * 16
Job = Callable[[ObjectStore, FakeClock], object]


def erases(install: str) -> Job:
    return lambda store, clock: erase(store, install, clock, clock.advance)


def compacts(store: ObjectStore, clock: FakeClock) -> None:
    compact(store, clock, max_bytes=1)


def stocked(root: Path) -> FakeClock:
    """Fill a store with daily files, segments and dead letters of three installs; return a clock
    days later.
    """
    store, clock = filled(root), FakeClock()
    makers = [
        EventFactory(install, start) for install, start in ((GONE, 700), (STAYS, 800), (THIRD, 900))
    ]
    for seq in (50, 51):
        put(store, clock, *(codec.encode(make.observation(seq=seq)) for make in makers))
    compact(store, clock)
    return late()


def run_asleep(root: Path, job: Job, meanwhile: Job, operation: int) -> tuple[bool, bool]:
    """Let a job sleep before its n-th operation while another one does all its work.

    Return whether it had so many operations, and whether it failed, so that it must be started
    again.
    """
    clock = late()
    slept: list[bool] = []

    def sleep() -> None:
        slept.append(True)
        clock.advance(LEASE_S)
        meanwhile(LocalObjectStore(root), clock)

    try:
        job(Interrupted(root, operation, sleep), clock)
    except (
        BusyError,
        EventError,
    ):  # its lease expired, or a file that it was about to read is gone
        return bool(slept), True
    return bool(slept), False


def sleep_everywhere(
    folder: Path, job: Job, meanwhile: Job, check: Callable[[Path, bool], None], step: int = 1
) -> int:
    """Let a job sleep at each `step`-th of its operations, each time on a copy of `folder`; return
    how many it has.
    """
    for operation in count(1, step):
        root = Path(shutil.copytree(folder, folder.with_name(f"{folder.name}-{operation}")))
        slept, failed = run_asleep(root, job, meanwhile, operation)
        if not slept:
            return operation - 1
        check(root, failed)
    raise AssertionError


def test_a_compaction_that_sleeps_brings_back_nothing_erased(tmp_path):
    """Wherever a compaction sleeps during an erasure, no byte of the id is left, and the others
    stay.
    """
    stocked(tmp_path / "store")
    before = others(read_segments(str(tmp_path / "store")))

    def check(root: Path, failed: bool) -> None:
        assert holding(root, GONE) == []
        assert others(read_segments(str(root))) == before

    assert sleep_everywhere(tmp_path / "store", compacts, erases(GONE), check) > 30


def test_a_compaction_that_sleeps_makes_nothing_count_twice(tmp_path):
    """Wherever a compaction sleeps during another one, all counters of the log are the same, and
    stay so.
    """
    stocked(tmp_path / "store")
    before = read_segments(str(tmp_path / "store"))

    def check(root: Path, failed: bool) -> None:
        assert read_segments(str(root)) == before
        compact(LocalObjectStore(root), FakeClock(late().wall_ms() + 10 * round(LEASE_S * 1000)))
        assert (read_segments(str(root)), LocalObjectStore(root).names("segments")) == (before, [])

    assert sleep_everywhere(tmp_path / "store", compacts, compacts, check) > 30


@pytest.mark.mutant
def test_the_sleeping_compaction_finds_a_lease_that_only_looks_after_writing(tmp_path, monkeypatch):
    """Without the empty file in its place, a daily file with erased lines appears after the
    erasure.
    """

    def create(self: Lease, name: str, data: bytes) -> None:
        self.renew()
        self._store.create(name, data)
        self.renew()

    monkeypatch.setattr(Lease, "create", create)
    stocked(tmp_path / "store")
    left: list[int] = []
    sleep_everywhere(
        tmp_path / "store", compacts, erases(GONE), lambda root, _: left.extend(holding(root, GONE))
    )
    assert left


@pytest.mark.parametrize("meanwhile", [compacts, erases(THIRD)], ids=["compact", "erase"])
def test_an_erasure_that_slept_is_completed_by_the_next(tmp_path, meanwhile):
    """Wherever an erasure sleeps during another job the log is correct, and nothing erased is left.

    The erasure is started again where it failed, and only there.
    """
    stocked(tmp_path / "store")
    before = others(read_segments(str(tmp_path / "store")))

    def check(root: Path, failed: bool) -> None:
        assert others(read_segments(str(root))) == before
        if failed:
            erases(GONE)(
                LocalObjectStore(root), FakeClock(late().wall_ms() + 10 * round(LEASE_S * 1000))
            )
            assert others(read_segments(str(root))) == before
        assert holding(root, GONE) == []
        assert meanwhile is compacts or holding(root, THIRD) == []

    assert sleep_everywhere(tmp_path / "store", erases(GONE), meanwhile, check, step=3) > 30


@pytest.mark.parametrize("folder", ["daily", "segments", "dead"])
def test_an_erasure_whose_write_outlasts_its_lease_fails(tmp_path, folder):
    """A hanging put brings back what another job erased: the erasure fails, and started again it
    removes that.
    """
    stocked(tmp_path)

    class HangingStore(LocalObjectStore):
        def put(self, name: str, data: bytes) -> None:
            if name.startswith(folder) and not hung:
                hung.append(name)
                clock.advance(LEASE_S)
                erases(THIRD)(LocalObjectStore(tmp_path), clock)
            super().put(name, data)

    clock, hung = late(), list[str]()
    with pytest.raises(BusyError, match=r"`erase` of .* took over and ended"):
        erases(GONE)(HangingStore(tmp_path), clock)
    assert hung
    erases(GONE)(LocalObjectStore(tmp_path), clock)
    assert holding(tmp_path, GONE) == holding(tmp_path, THIRD) == []


def test_an_erasure_whose_last_write_outlasts_its_lease_fails(tmp_path):
    """The very last put, of a segment that a slow collector wrote in the pause, hangs and brings
    back erased lines.
    """

    class HangingStore(LocalObjectStore):
        def put(self, name: str, data: bytes) -> None:
            if name.startswith("segments"):
                clock.advance(LEASE_S)
                erases(THIRD)(LocalObjectStore(tmp_path), clock)
            super().put(name, data)

    def pause(seconds: float) -> None:
        clock.advance(seconds)
        put(
            LocalObjectStore(tmp_path),
            clock,
            *(codec.encode(EventFactory(each).observation(seq=1)) for each in (*both, STAYS)),
        )

    clock, both = late(), (GONE, THIRD)
    with pytest.raises(BusyError, match=r"`erase` of .* took over and ended"):
        erase(HangingStore(tmp_path), GONE, clock, pause)
    assert holding(tmp_path, THIRD)
    erases(GONE)(LocalObjectStore(tmp_path), clock)
    assert [holding(tmp_path, each) for each in both] == [[], []]


def test_a_pending_daily_file_of_a_dead_job_cannot_appear(tmp_path):
    """A job dies in a put that the store completes later: after an erasure that put fails."""
    clock, store = stocked(tmp_path), LocalObjectStore(tmp_path)

    class DyingStore(LocalObjectStore):
        def create(self, name: str, data: bytes) -> None:
            if name.startswith("daily"):
                pending.append((name, data))
                raise KeyboardInterrupt
            super().create(name, data)

        def put(self, name: str, data: bytes) -> None:
            if pending:
                raise KeyboardInterrupt
            super().put(name, data)

    class DyingAtOnceStore(LocalObjectStore):
        def create(self, name: str, data: bytes) -> None:
            super().create(name, data)
            raise KeyboardInterrupt

    pending: list[tuple[str, bytes]] = []
    for dying in (DyingStore(tmp_path), DyingAtOnceStore(tmp_path)):
        with pytest.raises(KeyboardInterrupt):
            compact(dying, clock)
        clock.advance(LEASE_S)
    erases(GONE)(store, clock)
    [(name, data)] = pending
    assert GONE in daily_parquet.open_file(data).read()["install"].to_pylist()
    with pytest.raises(FileExistsError):
        store.create(name, data)
    assert holding(tmp_path, GONE) == []
