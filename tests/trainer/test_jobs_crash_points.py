"""Death of compaction and erasure at every named point: what is read stays right, and the next job ends the work."""

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

LATEST = 20  # passings of one point within which a job dies


def run(job: Callable[[Path, FakeClock], None], root: Path, clock: FakeClock, **points) -> int:
    """Let a child do the job with these crash points; return how it ended."""
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
    """Let a job die, and check what is read; let it run again, and check that nothing is left to do."""
    filled(root)
    clock, before = late(), read_segments(str(root))
    assert run(JOBS[name], root, clock, point=point, nth=nth) == 137, point
    found = read_segments(str(root))
    if name == "compact":
        assert found == before, point
    assert others(found) == others(before), point
    clock.advance(LEASE_S)
    JOBS[name](root, clock)
    found = read_segments(str(root))
    if name == "compact":
        assert (found, LocalObjectStore(root).names("segments")) == (before, []), point
    else:
        assert (others(found), holding(root, GONE)) == (others(before), []), point


def die_everywhere(folder: Path, name: str, times: int, step: int = 1) -> int:
    """Let a job die so often at each `step`-th point, each in a store of its own; return the points."""
    rng, found = random.Random(0), passings(folder / "all", JOBS[name])
    for number, (point, passed) in enumerate(sorted(found.items())[::step]):
        for again in range(times):
            die_at(folder / f"{number}-{again}", name, point, rng.randint(1, min(passed, LATEST)))
    return len(found)


@pytest.mark.parametrize("name", JOBS)
def test_a_job_may_die_at_any_named_point(tmp_path, name):
    """At every third of 40 points and more a job dies: the log is right then, and the next job brings it to an end."""
    assert die_everywhere(tmp_path, name, 1, step=3) >= 40


@pytest.mark.soak
@pytest.mark.parametrize("name", JOBS)
def test_a_job_may_die_at_any_named_point_twenty_times(tmp_path, name):
    """The same with twenty deaths at each point, at another passing each time."""
    points = die_everywhere(tmp_path, name, 20)
    print(f"{name}: {points} points, {20 * points} deaths")


def test_the_points_find_a_compaction_that_deletes_first(tmp_path, monkeypatch):
    """A compaction that deletes segments before their daily file is there is found out by one of its deaths (P4)."""
    create, delete = LocalObjectStore.create, LocalObjectStore.delete

    def deletes_first(self, name: str, data: bytes) -> None:
        for segment in self.names("segments") if name.startswith("daily") else []:
            delete(self, segment)
        create(self, name, data)

    monkeypatch.setattr(LocalObjectStore, "create", deletes_first)
    with pytest.raises(AssertionError, match="before write daily file"):
        die_at(tmp_path, "compact", "before write daily file", 1)


def test_the_points_find_a_store_that_writes_in_place(tmp_path, monkeypatch):
    """A store that writes over a file without a part beside it loses another's events to a death of erasure (P4)."""

    def in_place(self, name: str, data: bytes) -> None:
        path = self._root / name
        self._make(path.parent)
        with path.open("wb") as file:
            file.write(data)
        place.flush_path(path.parent)

    monkeypatch.setattr(LocalObjectStore, "put", in_place)
    with pytest.raises(EventError, match="segments/"):
        die_at(tmp_path, "erase", "between writes segments file", 1)
