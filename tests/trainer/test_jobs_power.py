"""Power cuts during compaction and erasure: the log stays correct, and the next job finishes the
work.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sanderling.errors import EventError
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.event_log.reader import read_segments
from sanderling_trainer.jobs.lease import LEASE_S, BusyError
from tests.support.collector_life import break_store
from tests.support.fakes import FakeClock
from tests.support.power import LoopDisk
from tests.support.stores import GONE, JOBS, filled, holding, late, others

pytestmark = [pytest.mark.lab, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]


def cut(
    disk: LoopDisk, job: Callable[[Path, FakeClock], None], after_s: float, mutant: str
) -> None:
    """Run a job in a child process, and cut the power after so many seconds."""
    child = os.fork()
    if child == 0:
        try:
            break_store(mutant)
            job(disk.folder / "store", late())
        finally:
            os._exit(1)
    time.sleep(after_s)
    disk.cut_under(child)
    disk.unplug()
    disk.plug_in()


def seconds(root: Path, job: Callable[[Path, FakeClock], None]) -> float:
    """Return how long a job takes on this disk without a power cut."""
    filled(root)
    start = time.monotonic()
    job(root, late())
    shutil.rmtree(root)
    return time.monotonic() - start


def cut_often(disk: LoopDisk, name: str, cuts: int, mutant: str = "", seed: int = 0) -> int:
    """Cut the power during jobs, each on a new store; return how many cuts came before the job's
    end.
    """
    rng = random.Random(seed)
    root = disk.folder / "store"
    interrupted = 0
    longest_s = seconds(root, JOBS[name])
    for _ in range(cuts):
        filled(root)
        before = read_segments(str(root))
        cut(disk, JOBS[name], rng.uniform(0, longest_s), mutant)
        log = read_segments(str(root))
        clock = late()
        assert others(log) == others(before)
        if name == "compact":
            assert log == before
            interrupted += bool(LocalObjectStore(root).names("segments"))
        else:
            interrupted += bool(holding(root, GONE))
        clock.advance(LEASE_S)
        JOBS[name](root, clock)
        if name == "compact":
            assert read_segments(str(root)) == before
        assert others(read_segments(str(root))) == others(before)
        assert (
            LocalObjectStore(root).names("segments") == []
            if name == "compact"
            else holding(root, GONE) == []
        )
        shutil.rmtree(root)
    return interrupted


@pytest.mark.parametrize("name", JOBS)
def test_a_power_cut_under_a_job_loses_nothing(disk, name):
    """After each of six cuts, or more until one came in time, the log is correct and the next job
    finishes the work.
    """
    assert any(cut_often(disk, name, 6, seed=seed) for seed in range(10))


@pytest.mark.power
@pytest.mark.parametrize("name", JOBS)
def test_hundreds_of_power_cuts_under_a_job_lose_nothing(disk, name):
    """The same after 250 cuts of each job."""
    print(
        f"{name}: 250 power cuts, {cut_often(disk, name, 250)} of them before the job's end, "
        "nothing lost"
    )


@pytest.mark.mutant
@pytest.mark.parametrize("name", JOBS)
def test_power_cuts_find_a_job_that_does_not_flush_its_files(disk, name):
    """If new files are not flushed before old ones are deleted, power cuts leave empty files."""
    with pytest.raises((EventError, BusyError, AssertionError)):
        cut_often(disk, name, 20, "never flushes the file")
