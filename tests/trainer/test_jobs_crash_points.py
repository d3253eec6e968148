"""Compaction and erasure die at every named point: the log stays correct, and the next job finishes
the work.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sanderling.errors import EventError
from sanderling_trainer.event_log import object_store as place
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.event_log.reader import read_segments
from sanderling_trainer.jobs.lease import LEASE_S
from tests.support.fakes import FakeClock
from tests.support.store_points import StorePoints
from tests.support.stores import GONE, JOBS, filled, holding, late, others

pytestmark = [pytest.mark.lab, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

LATEST = 20  # a job dies within so many passings of a point


def run(job: Callable[[Path, FakeClock], None], root: Path, clock: FakeClock, **points) -> int:
    """Run the job in a child process with these crash points; return its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            StorePoints(root, **points).watch()
            job(root, clock)
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def passings(folder: Path, job: Callable[[Path, FakeClock], None]) -> Counter[str]:
    """Return how often an undisturbed job passes each point."""
    filled(folder / "store")
    assert run(job, folder / "store", late(), record=folder / "points") == 0
    return Counter((folder / "points").read_text().split("\n")[:-1])


def die_at(root: Path, name: str, point: str, nth: int) -> None:
    """Let a job die and check what is read; run it again and check that nothing is left to do."""
    filled(root)
    clock, before = late(), read_segments(str(root))
    assert run(JOBS[name], root, clock, point=point, nth=nth) == 137, point
    log = read_segments(str(root))
    if name == "compact":
        assert log == before, point
    assert others(log) == others(before), point
    clock.advance(LEASE_S)
    JOBS[name](root, clock)
    log = read_segments(str(root))
    if name == "compact":
        assert (log, LocalObjectStore(root).names("segments")) == (before, []), point
    else:
        assert (others(log), holding(root, GONE)) == (others(before), []), point


def die_everywhere(folder: Path, name: str, times: int, step: int = 1) -> int:
    """Let a job die so often at each `step`-th point, each in a store of its own; return the
    points.
    """
    rng = random.Random(0)
    points = passings(folder / "all", JOBS[name])
    for number, (point, passed) in enumerate(sorted(points.items())[::step]):
        for repetition in range(times):
            die_at(
                folder / f"{number}-{repetition}", name, point, rng.randint(1, min(passed, LATEST))
            )
    return len(points)


@pytest.mark.parametrize("name", JOBS)
def test_a_job_may_die_at_any_named_point(tmp_path, name):
    """A job dies at every third of 40 points or more: the log is correct, and the next job finishes
    the work.
    """
    assert die_everywhere(tmp_path, name, 1, step=3) >= 40


@pytest.mark.soak
@pytest.mark.parametrize("name", JOBS)
def test_a_job_may_die_at_any_named_point_twenty_times(tmp_path, name):
    """The same with twenty deaths at each point, at random passings."""
    points = die_everywhere(tmp_path, name, 20)
    print(f"{name}: {points} points, {20 * points} deaths")


@pytest.mark.mutant
def test_the_points_find_a_compaction_that_deletes_first(tmp_path, monkeypatch):
    """A death reveals a compaction that deletes segments before their daily file exists."""
    create, delete = LocalObjectStore.create, LocalObjectStore.delete

    def deletes_first(self, name: str, data: bytes) -> None:
        for segment in self.names("segments") if name.startswith("daily") else []:
            delete(self, segment)
        create(self, name, data)

    monkeypatch.setattr(LocalObjectStore, "create", deletes_first)
    with pytest.raises(AssertionError, match="before write daily file"):
        die_at(tmp_path, "compact", "before write daily file", 1)


@pytest.mark.mutant
def test_the_points_find_a_store_that_writes_in_place(tmp_path, monkeypatch):
    """A store that overwrites in place loses events of other installs when an erasure dies."""

    def in_place(self, name: str, data: bytes) -> None:
        path = self.root / name
        self._make_folder(path.parent)
        with path.open("wb") as file:
            file.write(data)
        place.flush_path(path.parent)

    monkeypatch.setattr(LocalObjectStore, "put", in_place)
    with pytest.raises(EventError, match="segments/"):
        die_at(tmp_path, "erase", "between writes segments file", 1)
