"""A whole fleet simulated from one seed: real engines, a real collector, and every fault between
them.

Time, chance, network, disks and clocks are virtual. After each course the lab's log is compared
with a model.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.support.fleet.mutants import MUTANTS
from tests.support.fleet.odds import odds_faults
from tests.support.fleet.run import again, course

pytestmark = pytest.mark.lab


def play(seeds: range, mutant: str = "") -> None:
    """Play courses until one fails; print how to play it again."""
    told: Counter[tuple[float, bool]] = Counter()
    for seed in seeds:
        found = course(seed, MUTANTS.get(mutant))
        told += found.told
        found.faults += odds_faults(told)
        assert not found.faults, "\n".join(
            [f"seed {seed}: again with `{again(seed, mutant)}`", *found.faults]
        )


def test_no_promised_reward_is_lost_in_any_course():
    """Fifteen courses: no promised reward is lost, duplicated or without its decision; no number
    is missing."""
    play(range(15))


@pytest.mark.soak
def test_no_promised_reward_is_lost_in_two_thousand_courses():
    """The same for 2,000 seeds."""
    play(range(100_000, 102_000))


def test_one_seed_is_one_course():
    """A seed gives the same trace to the last bit, in this process and in one with other hash
    seeds."""
    here = course(310)
    assert course(310).digest == here.digest != course(311).digest
    command = [sys.executable, "-m", "tests.support.fleet.run", "310"]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert here.digest in done.stdout.splitlines()


@pytest.mark.mutant
@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_broken_device_and_lab_is_found(mutant):
    """Each broken device and lab is found within fifteen seeds, and the message says how to
    repeat it."""
    with pytest.raises(AssertionError, match=r"tests\.support\.fleet\.run"):
        play(range(15), mutant)
