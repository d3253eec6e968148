"""Simulates whole fleets: real engines, a real collector, and every kind of fault between them.

Each run follows from one seed. Time, random numbers, network, disks and clocks are simulated. After
a run the server's events are compared with what the apps' calls must have produced.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.support.fleet.flip_statistics import flip_count_faults
from tests.support.fleet.mutants import MUTANTS
from tests.support.fleet.run import replay_command, simulate

pytestmark = pytest.mark.lab


def simulate_all(seeds: range, mutant: str = "") -> None:
    """Simulate seeds until one fails; the message has the command that replays it."""
    flip_counts: Counter[tuple[float, bool]] = Counter()
    for seed in seeds:
        result = simulate(seed, MUTANTS.get(mutant))
        flip_counts += result.flip_counts
        result.faults += flip_count_faults(flip_counts)
        assert not result.faults, "\n".join(
            [f"seed {seed}, replay: `{replay_command(seed, mutant)}`", *result.faults]
        )


def test_no_confirmed_reward_is_lost():
    """In fifteen runs no confirmed reward is lost, duplicated or without its decision, and no
    sequence number is missing."""
    simulate_all(range(15))


@pytest.mark.soak
def test_no_confirmed_reward_is_lost_in_two_thousand_runs():
    """The same holds for 2,000 seeds."""
    simulate_all(range(100_000, 102_000))


def test_one_seed_gives_one_run():
    """A seed gives the same trace, bit for bit, in this process and in one with another hash
    seed."""
    first = simulate(310)
    assert simulate(310).digest == first.digest != simulate(311).digest
    command = [sys.executable, "-m", "tests.support.fleet.run", "310"]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert first.digest in done.stdout.splitlines()


@pytest.mark.mutant
@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_broken_device_or_server_is_detected(mutant):
    """Each broken device or server is detected within fifteen seeds, and the message has the
    command that replays it."""
    with pytest.raises(AssertionError, match=r"tests\.support\.fleet\.run"):
        simulate_all(range(15), mutant)
