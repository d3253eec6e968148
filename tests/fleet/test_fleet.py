"""A whole fleet from one seed: real engines, a real collector, and everything between them that can
go wrong.

Time, chance, network, disks and clocks are virtual; after each course the lab's reading is held
against the model.
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
    """Run seeds until one fails, and name the command that repeats it."""
    told: Counter[tuple[float, bool]] = Counter()
    for seed in seeds:
        found = course(seed, MUTANTS.get(mutant))
        told += found.told
        found.faults += odds_faults(told)
        assert not found.faults, "\n".join(
            [f"seed {seed}: again with `{again(seed, mutant)}`", *found.faults]
        )


def test_whatever_happens_the_lab_learns_what_was_promised():
    """In fifteen seeds no accepted reward is lost or counted twice, and no number is missing."""
    play(range(15))


@pytest.mark.soak
def test_whatever_happens_in_two_thousand_courses_the_lab_learns_what_was_promised():
    """The same for 2,000 seeds."""
    play(range(100_000, 102_000))


def test_one_seed_is_one_course():
    """A seed gives the same trace in this process and in another one with other hash seeds."""
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


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_courses_find_who_is_broken(mutant):
    """Each mutant is detected within fifteen seeds, and the message says how to repeat the run."""
    with pytest.raises(AssertionError, match=r"tests\.support\.fleet\.run"):
        play(range(15), mutant)
