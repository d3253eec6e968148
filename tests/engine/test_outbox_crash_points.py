"""Death at every named point: no acknowledged reward is lost at any of them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.crash_points import CrashPoints
from tests.support.crash_statistics import OutboxStatistics, count_outbox
from tests.support.outbox_victim import Life, live

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

LATEST = 20  # passings of one point within which a victim dies
LIVES = {"sending": {}, "shedding": {"limit_bytes": 96 * 1024, "collector": False}}


def fork(life: Life, points: dict) -> int:
    """Start a victim with these crash points; return its process id."""
    ready = os.open(os.devnull, os.O_WRONLY)
    child = os.fork()
    if child == 0:
        try:
            with CrashPoints(**points) as crash:
                live(life, ready, crash.passing)
        finally:
            os._exit(1)
    os.close(ready)
    return child


def passings(folder: Path, options: dict) -> Counter[str]:
    """Let a victim live for a second; return how often it passed each point."""
    folder.mkdir()
    child = fork(Life(folder, folder, 1, **options), {"record": folder / "points"})
    time.sleep(1.0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return Counter((folder / "points").read_text().split("\n")[:-1])


def die_at(point: str, nth: int, life: Life) -> OutboxStatistics:
    """Let a victim die when it passes a point for the nth time; return the statistics."""
    child = fork(life, {"point": point, "nth": nth})
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 137, point
    return count_outbox(life.folder)


def die_everywhere(folder: Path, kind: str, times: int) -> int:
    """Let victims die `times` times at each point, each in its own folder; return the points."""
    rng = random.Random(0)
    n_passings = passings(folder / "all", LIVES[kind])
    for number, (point, passed) in enumerate(sorted(n_passings.items())):
        for repeat in range(times):
            own = folder / f"{number}-{repeat}"
            own.mkdir()
            nth = rng.randint(1, min(passed, LATEST))
            statistics = die_at(point, nth, Life(own, own, 1, **LIVES[kind]))
            if kind == "shedding":
                # Shed rewards are lost, but declared and counted: no number is missing.
                statistics.lost = 0
            statistics.check()
    return len(n_passings)


@pytest.mark.parametrize("kind", LIVES)
def test_death_at_any_named_point_loses_nothing(tmp_path, kind):
    """A process dies once at each of 30 or more points: promised rewards are stored once, with
    their decisions."""
    assert die_everywhere(tmp_path, kind, 1) >= 30


@pytest.mark.soak
@pytest.mark.parametrize("kind", LIVES)
def test_death_at_any_named_point_loses_nothing_twenty_times(tmp_path, kind):
    """The same with twenty deaths at each point."""
    points = die_everywhere(tmp_path, kind, 20)
    print(f"{kind}: {points} points, {20 * points} deaths, nothing lost")


@pytest.mark.mutant
def test_a_broken_outbox_that_deletes_first_is_found_by_a_crash_point(tmp_path):
    """An outbox that deletes before the collector has the batch loses a reward when it dies on
    the way."""
    assert die_at("batch on its way", 9, Life(tmp_path, tmp_path, 1, "delete_first")).lost
