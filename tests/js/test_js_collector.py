"""Events of the JavaScript engine at a real collector: as from Python, none lost, none twice."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sanderling.cli.tiny import BUNDLE
from sanderling.events.schema import Decision, Outcome
from sanderling_trainer.event_log.examples import examples_of
from sanderling_trainer.event_log.reader import read_segments
from tests.support.javascript import NODE, needs_node
from tests.support.servers import serving

pytestmark = [pytest.mark.lab, needs_node]

REWARDS = 3
"""Rewards of each decision of `rewardLoop.ts`."""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The port of a collector in a process of its own."""
    collector, port = serving(tmp_path / "store")
    yield port
    collector.terminate()
    collector.wait(15)


def start(compiled: Path, folder: Path, port: int, rounds: int) -> subprocess.Popen[str]:
    """Start the process that rewards so many decisions and then uploads everything."""
    assert NODE is not None
    script = compiled / "test" / "support" / "rewardLoop.js"
    url = f"http://127.0.0.1:{port}/v1"
    command = [NODE, str(script), str(folder / "state"), url, "secret", str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def reward_and_kill(compiled: Path, folder: Path, port: int, delay_s: float) -> list[str]:
    """Kill a process so many seconds after it opened the engine; return the decisions whose
    rewards it was promised to be stored."""
    process = start(compiled, folder, port, 10**6)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    time.sleep(delay_s)
    process.kill()
    lines = process.stdout.read().split("\n")
    process.wait(10)
    return lines[:-1]  # the last line is empty, or was cut off


def reward_and_flush(compiled: Path, folder: Path, port: int, rounds: int) -> list[str]:
    """Let a process reward and upload everything; return the decisions that it named."""
    process = start(compiled, folder, port, rounds)
    try:
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    first, *decisions, last, end = output.split("\n")
    assert [first, last, end, process.returncode] == ["open", "flushed", "", 0]
    return decisions


def check_rewards(store: Path, promised: list[str]) -> None:
    """Assert that the log is complete and has each promised reward exactly once."""
    log = read_segments(str(store))
    assert (log.missing, log.conflicts, log.incomplete, log.cloned) == (
        0,
        0,
        frozenset(),
        frozenset(),
    )
    outcomes = [
        event for events in log.events.values() for event in events if isinstance(event, Outcome)
    ]
    times = Counter((outcome.decision, outcome.slot) for outcome in outcomes)
    assert set(times.values()) == {1}
    assert {(decision, slot) for decision in promised for slot in range(REWARDS)} <= set(times)


def test_events_are_read_as_those_of_python(compiled, tmp_path, port):
    """The lab rebuilds every state, and learns from every decision that has an outcome."""
    promised = reward_and_flush(compiled, tmp_path, port, 12)
    assert len(promised) == 12
    check_rewards(tmp_path / "store", promised)

    log = read_segments(str(tmp_path / "store"))
    manifest = msgspec.json.decode((BUNDLE / "manifest.json").read_bytes())
    catalog = (BUNDLE / "catalog.jsonl").read_bytes().splitlines()
    ids = [msgspec.json.decode(line)["id"] for line in catalog]
    found = examples_of(log, ids, manifest["kinds"], manifest["sizes"]["text"])
    decisions = [
        event for events in log.events.values() for event in events if isinstance(event, Decision)
    ]
    assert not found.dropped
    assert len(found.decisions) == len(decisions) == len(promised)
    assert found.decisions.reward.tolist() == [[1.0, -1.0, 0.5, 0.0]] * len(promised)
    assert found.decisions.judged.tolist() == [[True, True, True, False]] * len(promised)
    assert len(found.histories) == 3
    assert log.misdated == 0


def test_no_promised_reward_is_lost_or_counted_twice_by_kills(compiled, tmp_path, port):
    """Killed at any moment, the next process uploads all that was promised, once."""
    kill_and_check(compiled, tmp_path, port, random.Random(1), kills=6)


@pytest.mark.soak
def test_no_promised_reward_is_lost_or_counted_twice_by_many_kills(compiled, tmp_path, port):
    """The same with two hundred kills."""
    kill_and_check(compiled, tmp_path, port, random.Random(2), kills=200)


def kill_and_check(compiled: Path, folder: Path, port: int, rng: random.Random, kills: int) -> None:
    """Kill so many processes one after the other, then let one upload what is left."""
    promised: list[str] = []
    for _ in range(kills):
        promised += reward_and_kill(compiled, folder, port, rng.random() ** 3)
    promised += reward_and_flush(compiled, folder, port, 2)
    assert len(promised) > 2
    check_rewards(folder / "store", promised)
