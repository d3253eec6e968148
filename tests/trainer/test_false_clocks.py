"""Real processes whose wall clock lies, by libfaketime: nothing is lost, and the lab knows the time (P30)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sanderling.events.schema import Decision, Outcome
from sanderling_trainer.event_log.reader import read_segments
from tests.support.bundles import write_bundle
from tests.support.servers import Server

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
ROOT = Path(__file__).parents[2]
SLATES, PAUSE_S = 40, 0.05

pytestmark = [
    pytest.mark.lab,
    pytest.mark.soak,
    pytest.mark.skipif(not LIBRARY.exists(), reason="needs libfaketime (apt-get install faketime)"),
]

CONSTANT = {
    "right": "+0",
    "two years behind": "-2y",
    "ten years ahead": "+10y",
    "an hour ahead": "+1h",
}
STEPPING = {
    "an hour forth and back": ["+1h", "-1h", "+0"],
    "ten years ahead, then right": ["+10y", "+0"],
    "two years behind, then ten ahead": ["-2y", "+10y"],
    "never set, then right": ["-56y", "+0"],
}


def live(folder: Path, server: Server, offsets: list[str]) -> tuple[dict, float]:
    """Let a device live under a clock that is off by each offset in turn; return its report, and wall minus monotonic
    time of the honest clock."""
    write_bundle(folder / "bundle")
    file = folder / "offset"
    file.write_text(offsets[0])
    url = f"http://127.0.0.1:{server.port}/v1"
    command = [
        sys.executable,
        "-m",
        "tests.support.clock_victim",
        str(folder / "bundle"),
        str(folder / "state"),
        url,
    ]
    faked = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    child = subprocess.Popen(
        [*command, str(SLATES), str(PAUSE_S), "90"],
        cwd=ROOT,
        env={**os.environ, **faked},
        stdout=subprocess.PIPE,
    )
    offset = time.time() - time.monotonic()
    while not (folder / "state" / "outbox.db").exists() and child.poll() is None:
        time.sleep(0.02)
    for value in offsets[1:]:
        time.sleep(SLATES * PAUSE_S / len(offsets))
        file.write_text(value)
    said, _ = child.communicate(timeout=200)
    assert child.returncode == 0
    return json.loads(said), offset


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "lab")
    yield server
    server.stop()


def check(report: dict, folder: Path) -> dict[str, Decision]:
    """Hold what was promised against what the lab reads; return the decisions by id."""
    log = read_segments(str(folder / "lab"))
    events = [event for found in log.events.values() for event in found]
    assert (report["pending"], report["lost"]) == (0, {})
    assert (log.missing, log.conflicts, log.duplicates) == (0, 0, 0)
    assert len(report["promised"]) == SLATES
    rewards = [
        event.kind for event in events if isinstance(event, Outcome) and event.kind != "skip"
    ]
    assert sorted(rewards) == sorted(report["promised"])
    decisions = {event.id: event for event in events if isinstance(event, Decision)}
    assert set(decisions) == set(report["made"])
    return decisions


@pytest.mark.parametrize("course", CONSTANT)
def test_a_clock_that_is_only_wrong_is_corrected(tmp_path, server, course):
    """A process years off loses nothing, and the lab knows each decision's time within two seconds."""
    report, offset = live(tmp_path, server, [CONSTANT[course]])
    check(report, tmp_path)
    time_of = read_segments(str(tmp_path / "lab")).time
    errors = [abs(time_of[id] / 1000 - (made + offset)) for id, made in report["made"].items()]
    away = report["wall"] - time.time()
    print(
        f"{course}: clock {away / 86_400 / 365:+.1f} years, {len(errors)} decisions, at most {max(errors):.3f} s off"
    )
    assert max(errors) <= 2.0


@pytest.mark.parametrize("course", STEPPING)
def test_a_clock_that_steps_loses_nothing(tmp_path, server, course):
    """Whatever the wall clock does meanwhile, each promised reward arrives once, with its decision."""
    report, _ = live(tmp_path, server, STEPPING[course])
    check(report, tmp_path)
