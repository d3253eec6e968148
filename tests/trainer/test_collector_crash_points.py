"""The collector is killed at every named crash point: no answered event is lost."""

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

LATEST = 20  # a collector dies within so many passings of a point


def passings(folder: Path) -> Counter[str]:
    """Let a collector take twenty uploads of each device; return how often it passed each point."""
    folder.mkdir()
    collector = Collector(folder / "store", record=folder / "points")
    devices = [Device(number) for number in range(DEVICES)]
    send_until(
        devices,
        collector,
        lambda: wait_until(lambda: all(len(device.answered) >= 60 for device in devices), 60),
    )
    collector.kill()
    return Counter((folder / "points").read_text().split("\n")[:-1])


def die_at(root: Path, point: str, nth: int, mutant: str = "") -> CollectorStatistics:
    """Kill a collector at a point while devices send, let another one take over, and count."""
    devices = [Device(number) for number in range(DEVICES)]
    collector = Collector(root, mutant, point=point, nth=nth)
    send_until(devices, collector, lambda: check_death(collector, point))
    successor = Collector(root, mutant)
    try:
        send_until(devices, successor, lambda: wait_for_answers(devices))
    finally:
        successor.kill()
    return count_collector(root, devices)


def check_death(collector: Collector, point: str) -> None:
    assert collector.wait() == 137, point


def die_everywhere(folder: Path, times: int) -> tuple[int, CollectorStatistics]:
    """Kill collectors `times` times at each point, each with its own store; return the points and
    statistics.
    """
    rng = random.Random(0)
    total = CollectorStatistics()
    points = passings(folder / "all")
    for number, (point, passed) in enumerate(sorted(points.items())):
        for repetition in range(times):
            statistics = die_at(
                folder / f"{number}-{repetition}", point, rng.randint(1, min(passed, LATEST))
            )
            statistics.check()
            total.add(statistics)
    return len(points), total


def test_death_at_any_named_point_loses_nothing_that_was_answered(tmp_path):
    """A collector dies once at each of 25 points or more: every answered event is read, once."""
    points, statistics = die_everywhere(tmp_path, 1)
    assert points >= 25
    assert statistics.answered


@pytest.mark.soak
def test_death_at_any_named_point_loses_nothing_twenty_times(tmp_path):
    """The same with twenty deaths at each point, at random passings."""
    points, statistics = die_everywhere(tmp_path, 20)
    print(
        f"{points} points, {20 * points} deaths, "
        f"{statistics.answered} answered events, {statistics.lost} lost"
    )


@pytest.mark.mutant
def test_a_named_point_finds_a_collector_that_answers_before_it_stores(tmp_path):
    """A collector that answers before the commit loses events when it dies after an answer."""
    assert die_at(tmp_path / "store", "after answer", 9, "answers before the commit").lost
