"""Power cuts: promised rewards are on the disk, in order, and no number is used twice."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from sanderling.outbox.event_store import EventStore
from sanderling.outbox.outbox import Outbox
from sanderling.runtime.clock import SystemClock
from tests.support.crash_statistics import OutboxStatistics, count_outbox
from tests.support.fakes import EventFactory
from tests.support.outbox_victim import Life, live
from tests.support.power import LoopDisk, plugged_in


@pytest.fixture
def disk(tmp_path, request) -> Iterator[LoopDisk]:
    with plugged_in(tmp_path, request) as disk:
        yield disk


def cut_often(disk: LoopDisk, notes: Path, cuts: int, mutant: str = "") -> OutboxStatistics:
    """Let victims work on the disk one after the other, cut the power at a random moment; count.

    The notes of the victims, and what the collector has, are on a disk whose power stays on.
    """
    rng = random.Random(0)
    for number in range(1, cuts + 1):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                live(Life(disk.folder / "state", notes, number, mutant), writing)
            finally:
                os._exit(1)
        os.close(writing)
        assert os.read(reading, 1) == b"!"
        time.sleep(rng.uniform(0, 0.2))
        disk.cut_under(child)
        os.close(reading)
        disk.unplug()
        disk.plug_in()
    statistics = count_outbox(disk.folder / "state", notes)
    with apsw.Connection(str(disk.folder / "state" / "outbox.db")) as checked:
        assert checked.pragma("integrity_check") == "ok"
    checked.close()
    return statistics


def test_no_promised_reward_is_lost_to_a_power_cut(disk, tmp_path):
    """After 20 power cuts each promised reward and its decision are there, each once."""
    statistics = cut_often(disk, tmp_path, 20)
    assert statistics.promised > 0 < statistics.received
    statistics.check()


@pytest.mark.power
def test_no_promised_reward_is_lost_to_hundreds_of_power_cuts(disk, tmp_path):
    """The same after 500 power cuts: with no loss the rate is below 0.6 % with 95 % confidence."""
    statistics = cut_often(disk, tmp_path, 500)
    statistics.check()
    print(
        f"500 power cuts, {statistics.promised} promised rewards,"
        f" {statistics.received} events received, 0 lost"
    )


@pytest.mark.mutant
def test_a_broken_outbox_that_does_not_flush_is_found(disk, tmp_path):
    """An outbox that promises rewards after a commit without a flush loses some to power cuts."""
    assert cut_often(disk, tmp_path, 5, "unflushed").lost


@pytest.mark.parametrize("marks", [True, False], ids=["marked", "broken"])
def test_sent_events_survive_a_power_cut(disk, monkeypatch, marks):
    """A decision that was sent before it was flushed keeps its number; without the mark it is
    lost."""
    if not marks:
        monkeypatch.setattr(EventStore, "mark_sent", lambda self, seq: None)
    outbox = Outbox(disk.folder / "state", clock=SystemClock())
    outbox.put([EventFactory(outbox.install).decision()])
    while outbox.counters().pending == 0:
        time.sleep(0.01)
    sent = outbox.oldest(1, 10**6)
    disk.cut()
    outbox.close()
    disk.unplug()
    disk.plug_in()
    reopened = Outbox(disk.folder / "state", clock=SystemClock())
    assert (reopened.oldest(1, 10**6) == sent) is marks
    reopened.close()
