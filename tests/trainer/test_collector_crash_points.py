"""Death of the collector at every named point: no answered event is lost at any of them (promises P2 and P23)."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.support.collector_life import DEVICES, Collector, Device, send_until, wait_for_answers
from tests.support.crash_statistics import CollectorStatistics, count_collector
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.lab, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

LATEST = 20  # passings of one point within which a collector dies


def passings(folder: Path) -> Counter[str]:
    """Let a collector take twenty uploads of each device; return how often it passed each point."""
    folder.mkdir()
    collector = Collector(folder / "store", record=folder / "points")
    devices = [Device(number) for number in range(DEVICES)]
    send_until(
        devices,
        collector,
        lambda: wait_until(lambda: all(len(one.answered) >= 60 for one in devices), 60),
    )
    collector.kill()
    return Counter((folder / "points").read_text().split("\n")[:-1])


def die_at(root: Path, point: str, nth: int, mutant: str = "") -> CollectorStatistics:
    """Let a collector die at a point while devices send, and another take over; then count."""
    devices = [Device(number) for number in range(DEVICES)]
    collector = Collector(root, mutant, point=point, nth=nth)
    send_until(devices, collector, lambda: check_death(collector, point))
    again = Collector(root, mutant)
    try:
        send_until(devices, again, lambda: wait_for_answers(devices))
    finally:
        again.kill()
    return count_collector(root, devices)


def check_death(collector: Collector, point: str) -> None:
    assert collector.wait() == 137, point


def die_everywhere(folder: Path, times: int) -> tuple[int, CollectorStatistics]:
    """Let collectors die `times` times at each point, each in a store of its own; return points and statistics."""
    rng, whole = random.Random(0), CollectorStatistics()
    found = passings(folder / "all")
    for number, (point, passed) in enumerate(sorted(found.items())):
        for again in range(times):
            statistics = die_at(
                folder / f"{number}-{again}", point, rng.randint(1, min(passed, LATEST))
            )
            statistics.check()
            whole.add(statistics)
    return len(found), whole


def test_death_at_any_named_point_loses_nothing_that_was_answered(tmp_path):
    """At each of 25 points and more a collector dies once: what was answered is read, once, after another took over."""
    points, statistics = die_everywhere(tmp_path, 1)
    assert points >= 25
    assert statistics.answered


@pytest.mark.soak
def test_death_at_any_named_point_loses_nothing_twenty_times(tmp_path):
    """The same with twenty deaths at each point, at another passing each."""
    points, statistics = die_everywhere(tmp_path, 20)
    print(
        f"{points} points, {20 * points} deaths, {statistics.answered} answered events, {statistics.lost} lost"
    )


def test_a_named_point_finds_a_collector_that_answers_before_it_stores(tmp_path):
    """A collector that answers before the commit loses events at a death right after an answer (P4)."""
    assert die_at(tmp_path / "store", "after answer", 9, "answers before the commit").lost
