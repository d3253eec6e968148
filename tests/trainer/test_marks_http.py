"""No personal data leaves over HTTP: every byte on the wire and on both disks is searched for
canaries.
"""

from __future__ import annotations

import logging
import re
import time

import pytest

from sanderling.upload.transport import HttpTransport
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.event_log.reader import read_segments
from sanderling_trainer.jobs.compact import compact
from tests.support.fakes import FakeClock
from tests.support.marked import SETTINGS, Course
from tests.support.marks import Marks
from tests.support.servers import Server
from tests.support.tap import Tap

pytestmark = pytest.mark.lab


class LeakingTransport(HttpTransport):
    """Sends a user name in a header."""

    def post(self, body, headers):
        return super().post(body, {**headers, "x-user": Marks("user").new()})


@pytest.fixture
def tap(tmp_path):
    """A server, and a tap in front of it."""
    server = Server(tmp_path / "lab")
    tap = Tap(server.port)
    yield tap
    tap.close()
    server.stop()


def run(
    folder,
    tap: Tap,
    caplog,
    rounds: int,
    engines: int = len(SETTINGS),
    transport: type[HttpTransport] = HttpTransport,
) -> tuple[Course, set[tuple[str, str]]]:
    """Run engines for `rounds`; return where marks were found, before and after a compaction."""
    caplog.set_level(logging.DEBUG)
    course = Course(folder, {"transport": transport(f"http://127.0.0.1:{tap.port}/v1", "secret")})
    for number in range(engines):
        course.run_engine(number, rounds)
    wire = list(tap.wire())
    stored = read_segments(str(folder / "lab")).time
    assert stored.keys() <= {
        id.decode() for text in wire for id in re.findall(rb'"id":"([0-9a-f]{32})"', text)
    }
    assert any(b"sent-at: " in text for text in wire)
    found = course.leaks(wire, caplog.text)
    compact(LocalObjectStore(folder / "lab"), FakeClock(round(1000 * time.time()) + 2 * 86_400_000))
    assert list((folder / "lab").rglob("*.parquet"))
    return course, found | course.stored()


def test_no_mark_crosses_the_wire(tmp_path, tap, caplog):
    """None of 160 marks is in a header, body, answer, log, or file of the server or, but for added
    items, the device.
    """
    course, found = run(tmp_path, tap, caplog, 10)
    assert found == set()
    assert sum(marks.made for marks in course.kinds) == 160


@pytest.mark.soak
def test_none_of_ten_thousand_marks_crosses_the_wire(tmp_path, tap, caplog):
    """The same for 10,000 marks."""
    course, found = run(tmp_path, tap, caplog, 625)
    assert found == set()
    assert sum(marks.made for marks in course.kinds) == 10_000


@pytest.mark.mutant
def test_a_mark_in_a_header_is_found(tmp_path, tap, caplog):
    """The search finds a device that sends a user name in a header."""
    _, found = run(tmp_path, tap, caplog, 2, engines=1, transport=LeakingTransport)
    assert ("wire", "user") in found
