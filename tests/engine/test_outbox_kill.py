"""Kills at random moments: no acknowledged reward is lost, and none arrives without its
decision."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.crash_statistics import (
    OutboxStatistics,
    count_outbox,
    is_confirmation,
    is_event,
    lines,
)
from tests.support.outbox_victim import VictimSettings, run_victim
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def kill_often(
    folder: Path,
    kills: int,
    mutant: str = "",
    seed: int = 0,
    ready: Callable[[], bool] = lambda: True,
) -> OutboxStatistics:
    """Fork the victim and kill it at a random moment once it is ready, `kills` times on one
    folder; return the statistics."""
    folder.mkdir(exist_ok=True)
    rng = random.Random(seed)
    for number in range(1, kills + 1):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                run_victim(VictimSettings(folder, folder, number, mutant), writing)
            finally:
                os._exit(1)
        os.close(writing)
        assert os.read(reading, 1) == b"!"
        time.sleep(rng.uniform(0, 0.06))
        assert wait_until(ready)
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        os.close(reading)
    return count_outbox(folder)


def test_no_confirmed_reward_is_lost_to_a_kill(tmp_path):
    """After 80 kills every confirmed reward is in the outbox or at the collector, once, with its
    decision."""
    statistics = kill_often(tmp_path, 80)
    assert statistics.confirmed > 0 < statistics.received
    statistics.check()


@pytest.mark.soak
def test_no_confirmed_reward_is_lost_to_ten_thousand_kills(tmp_path):
    """The same after 10,000 kills in 100 folders: with no loss the rate is below 0.03 % with 95
    % confidence."""
    confirmed = 0
    for seed in range(100):
        statistics = kill_often(tmp_path / str(seed), 100, seed=seed)
        statistics.check()
        confirmed += statistics.confirmed
    print(f"10,000 kills, {confirmed} confirmed rewards, none lost")


def has(kind: Callable[[bytes], bool], notes: Path) -> bool:
    """Return whether the notes contain a complete line of that kind."""
    return any(kind(line) for line in lines(notes))


def test_a_line_torn_by_a_kill_spoils_no_other(tmp_path):
    """Half a confirmation and half an event at the end of the notes are not counted."""
    (tmp_path / "confirmed").write_text("\n" + "e" * 32 + " " + "f" * 13)
    (tmp_path / "received").write_text('\n{"type":"decision","id":"')

    def noted() -> bool:
        confirmed = has(is_confirmation, tmp_path / "confirmed")
        return confirmed and has(is_event, tmp_path / "received")

    statistics = kill_often(tmp_path, 3, ready=noted)
    assert statistics.confirmed > 0 < statistics.received
    statistics.check()


@pytest.mark.mutant
def test_a_broken_outbox_that_confirms_what_is_queued_is_detected(tmp_path):
    """An outbox that confirms what is only queued loses rewards to kills."""
    for seed in range(40):
        if kill_often(tmp_path / str(seed), 6, "queue_only", seed).lost:
            return
    pytest.fail("expected a lost reward within 240 kills, found none")
