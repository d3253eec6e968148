"""Kills at random moments: no acknowledged reward is lost, and none arrives without its decision (promise P1)."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sanderling.clock import SystemClock
from sanderling.contract import events as wire
from sanderling.contract.events import Event, Outcome
from sanderling.errors import EventError
from sanderling.outbox import Outbox
from tests.engine.outbox_victim import live

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@dataclass
class Toll:
    """What a series of kills cost: promised rewards lost, rewards without their decision, numbers used twice."""

    promised: int = 0
    lost: int = 0
    orphans: int = 0
    clashes: int = 0
    gaps: int = 0
    events: dict[str, Event] = field(default_factory=dict)


def kill_often(folder: Path, kills: int, mutant: str = "", seed: int = 0) -> Toll:
    """Fork the victim and kill it after a random moment, `kills` times over one folder; then count."""
    folder.mkdir(exist_ok=True)
    rng = random.Random(seed)
    for number in range(1, kills + 1):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                live(folder, number, mutant, writing)
            finally:
                os._exit(1)
        os.close(writing)
        assert os.read(reading, 1) == b"!"
        time.sleep(rng.uniform(0, 0.06))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        os.close(reading)
    return count(folder)


def count(folder: Path) -> Toll:
    toll = Toll()
    received = [line for line in whole_lines(folder / "received") if is_event(line)]
    outbox = Outbox(folder, clock=SystemClock())
    kept = [pending.line for pending in outbox.oldest(10**6, 2**40)]
    outbox.close()
    for line in (*received, *kept):
        event = wire.decode(line)
        toll.clashes += toll.events.setdefault(event.id, event) != event
    numbers = Counter(event.seq for event in toll.events.values())
    toll.clashes += len(toll.events) - len(numbers)
    toll.gaps = max(numbers, default=0) - len(numbers)
    promises = [line.split() for line in whole_lines(folder / "promises")]
    toll.promised = len(promises)
    toll.lost = sum(outcome.decode() not in toll.events for outcome, _ in promises)
    outcomes = [event for event in toll.events.values() if isinstance(event, Outcome)]
    toll.orphans = sum(outcome.decision not in toll.events for outcome in outcomes)
    return toll


def is_event(line: bytes) -> bool:
    """Tell whether a line is a whole event; the collector's process, killed in a write, leaves part of one that it
    never acknowledged."""
    try:
        wire.decode(line)
    except EventError:
        return False
    return True


def whole_lines(path: Path) -> list[bytes]:
    """Return the lines of a log that may end in the middle of one."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def check(toll: Toll) -> None:
    assert toll.promised > 0
    assert (toll.lost, toll.orphans, toll.clashes, toll.gaps) == (0, 0, 0, 0)


def test_no_promised_reward_is_lost_to_a_kill(tmp_path):
    """After 150 kills every promised reward is in the outbox or at the collector, once, with its decision."""
    check(kill_often(tmp_path, 150))


@pytest.mark.soak
def test_no_promised_reward_is_lost_to_thousands_of_kills(tmp_path):
    """The same after 3,000 kills in 30 folders: with no loss the rate is below 0.1 % with 95 % confidence."""
    for seed in range(30):
        check(kill_often(tmp_path / str(seed), 100, seed=seed))


@pytest.mark.parametrize("mutant", ["delete_first", "queue_only"])
def test_the_harness_bites(tmp_path, mutant):
    """An outbox that deletes before the collector has the batch, or promises what is only queued, is found out (P4)."""
    for seed in range(40):
        if kill_often(tmp_path / str(seed), 6, mutant, seed).lost:
            return
    pytest.fail(f"240 kills did not find the mutant {mutant}")
