"""Processes with wrong wall clocks (libfaketime): nothing is lost, and times are corrected."""

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


def run_device(folder: Path, server: Server, offsets: list[str]) -> tuple[dict, float]:
    """Run a device with a clock that is off by each offset in turn.

    Return its report, and wall minus monotonic time, in seconds, of the correct clock.
    """
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
    output, _ = child.communicate(timeout=200)
    assert child.returncode == 0
    return json.loads(output), offset


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "lab")
    yield server
    server.stop()


def check(report: dict, folder: Path) -> dict[str, Decision]:
    """Compare the rewards that the device stored with the log; return the decisions by id."""
    log = read_segments(str(folder / "lab"))
    events = [event for of_user in log.events.values() for event in of_user]
    assert (report["pending"], report["lost"]) == (0, {})
    assert (log.missing, log.conflicts, log.duplicates) == (0, 0, 0)
    assert len(report["stored"]) == SLATES
    rewards = [
        event.kind for event in events if isinstance(event, Outcome) and event.kind != "skip"
    ]
    assert sorted(rewards) == sorted(report["stored"])
    decisions = {event.id: event for event in events if isinstance(event, Decision)}
    assert set(decisions) == set(report["decided_at"])
    return decisions


@pytest.mark.parametrize("case", CONSTANT)
def test_a_constant_clock_error_is_corrected(tmp_path, server, case):
    """With a clock years off nothing is lost, and each decision's time is corrected to within two
    seconds.
    """
    report, offset = run_device(tmp_path, server, [CONSTANT[case]])
    check(report, tmp_path)
    time_of = read_segments(str(tmp_path / "lab")).time
    errors = [
        abs(time_of[id] / 1000 - (decided_at + offset))
        for id, decided_at in report["decided_at"].items()
    ]
    away = report["wall"] - time.time()
    print(
        f"{case}: clock {away / 86_400 / 365:+.1f} years, {len(errors)} decisions, "
        f"at most {max(errors):.3f} s off"
    )
    assert max(errors) <= 2.0


@pytest.mark.parametrize("case", STEPPING)
def test_a_clock_that_steps_loses_nothing(tmp_path, server, case):
    """However the wall clock steps, each stored reward arrives once, with its decision."""
    report, _ = run_device(tmp_path, server, STEPPING[case])
    check(report, tmp_path)
