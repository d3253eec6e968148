"""The log of `bench scale_job` is one that the nightly job takes as a whole."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.scaling.fleet_log import NightClock, write_checkpoint, write_store
from sanderling_trainer.jobs.night_inputs import NightInputs
from sanderling_trainer.jobs.retrain_options import RetrainOptions

pytestmark = pytest.mark.lab

DECISIONS, ITEMS = 300, 100


def test_every_decision_of_the_log_is_usable(tmp_path):
    """Checksums, propensities, numbers and times are those of real devices: nothing is dropped."""
    write_checkpoint(tmp_path / "active", ITEMS)
    counts = write_store(tmp_path / "events", DECISIONS, ITEMS)
    night = NightInputs.read(
        str(tmp_path / "events"), tmp_path / "active", RetrainOptions(), NightClock()
    )
    assert night.lessons.new == DECISIONS
    assert night.log.examples.dropped == Counter()
    assert night.log.summary.received == counts["events"]
    assert night.log.summary.installs == counts["installs"] > 1
    assert night.log.summary.missing == night.log.summary.misdated == 0
