"""Power cuts while a collector takes uploads: every answered event is on the disk."""

from __future__ import annotations

import os
import random
import shutil
import time
from functools import partial

import pytest

from tests.support.collector_life import DEVICES, Collector, Device, send_until
from tests.support.crash_statistics import CollectorStatistics, count_collector
from tests.support.power import LoopDisk

pytestmark = [pytest.mark.lab, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

# A new store after so many cuts, so that its folders are created under cuts as well.
CUTS_PER_STORE = 20


def cut_often(disk: LoopDisk, cuts: int, mutant: str = "", seed: int = 0) -> CollectorStatistics:
    """Let collectors take uploads, one after the other, each until a power cut at a random moment;
    then count.
    """
    rng = random.Random(seed)
    total = CollectorStatistics()
    root = disk.folder / "store"
    devices = [Device(number) for number in range(DEVICES)]
    for number in range(1, cuts + 1):
        collector = Collector(root, mutant)
        send_until(devices, collector, partial(cut_power, disk, collector, devices, rng))
        disk.unplug()
        disk.plug_in()
        if number % CUTS_PER_STORE == 0 or number == cuts:
            total.add(count_collector(root, devices))
            shutil.rmtree(root, ignore_errors=True)
            devices = [Device(number * DEVICES + i) for i in range(1, DEVICES + 1)]
    return total


def cut_power(
    disk: LoopDisk, collector: Collector, devices: list[Device], rng: random.Random
) -> None:
    """Cut the power at a random moment after the first answer."""
    before = sum(len(device.answered) for device in devices)
    deadline = time.monotonic() + 10
    while sum(len(device.answered) for device in devices) == before and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.2))
    disk.cut_under(collector.child)


def test_no_answered_event_is_lost_to_a_power_cut(disk):
    """After 20 power cuts under load every answered event is read, once, and no dead letter is
    lost.
    """
    statistics = cut_often(disk, 20)
    assert statistics.answered
    statistics.check()


@pytest.mark.power
def test_no_answered_event_is_lost_to_hundreds_of_power_cuts(disk):
    """The same after 500 power cuts: with no loss the rate is below 0.6 % of cuts with 95 %
    confidence.
    """
    statistics = cut_often(disk, 500)
    print(f"500 power cuts, {statistics.answered} answered events, {statistics.lost} lost")
    statistics.check()


@pytest.mark.mutant
@pytest.mark.parametrize(
    "mutant",
    [
        "answers before the commit",
        "answers before the folder's flush",
        "never flushes the folder",
        "never flushes the file",
        "never flushes at all",
    ],
)
def test_power_cuts_find_a_collector_that_answers_too_early(disk, mutant):
    """A collector that answers before file, name and folder are flushed loses answered events to
    power cuts.

    One cut finds the rarest of these faults two times in three on an idle machine: the next flush
    hides the fault.
    """
    assert any(cut_often(disk, 1, mutant, seed).lost for seed in range(60))
