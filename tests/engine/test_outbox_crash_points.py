"""Death at every named point: no acknowledged reward is lost at any of them (promise P2)."""

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
    """Let a victim die at the nth passing of a point; then count."""
    child = fork(life, {"point": point, "nth": nth})
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 137, point
    return count_outbox(life.folder)


def die_everywhere(folder: Path, kind: str, times: int) -> int:
    """Let victims die `times` times at each point, each in a folder of its own; check each; return the points."""
    rng = random.Random(0)
    found = passings(folder / "all", LIVES[kind])
    for number, (point, passed) in enumerate(sorted(found.items())):
        for again in range(times):
            own = folder / f"{number}-{again}"
            own.mkdir()
            nth = rng.randint(1, min(passed, LATEST))
            statistics = die_at(point, nth, Life(own, own, 1, **LIVES[kind]))
            if kind == "shedding":
                statistics.lost = (
                    0  # shed rewards are lost, declared and counted: then no number is missing
                )
            statistics.check()
    return len(found)


@pytest.mark.parametrize("kind", LIVES)
def test_death_at_any_named_point_loses_nothing(tmp_path, kind):
    """At each of 30 points and more a process dies once: promised rewards are there, with their decisions, once."""
    assert die_everywhere(tmp_path, kind, 1) >= 30


@pytest.mark.soak
@pytest.mark.parametrize("kind", LIVES)
def test_death_at_any_named_point_loses_nothing_twenty_times(tmp_path, kind):
    """The same with twenty deaths at each point, at another passing each."""
    points = die_everywhere(tmp_path, kind, 20)
    print(f"{kind}: {points} points, {20 * points} deaths, nothing lost")


def test_a_named_point_finds_who_deletes_first(tmp_path):
    """An outbox that deletes before the collector has the batch loses a reward at one death on the way there (P4)."""
    assert die_at("batch on its way", 9, Life(tmp_path, tmp_path, 1, "delete_first")).lost
