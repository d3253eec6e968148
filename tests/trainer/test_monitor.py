"""What `sanderling monitor` counts of a fleet's day, from its events to a Pushgateway."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from sanderling.cli import app
from sanderling.errors import EventError
from sanderling.events import codec
from sanderling.events.schema import ClockReading, Event, Loss, Slot, TextCounts
from sanderling_trainer.event_log import segment_format
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.jobs.figures import FLEET
from sanderling_trainer.jobs.fleet_changes import FILE, WATCHED, changed
from sanderling_trainer.jobs.fleet_clicks import DAY_MS
from sanderling_trainer.jobs.fleet_days import Completeness, FleetDay
from sanderling_trainer.jobs.monitor import MAX_RELEASES, FleetReport, monitor
from tests.support.commands import declared
from tests.support.fakes import EventFactory, FakeClock
from tests.support.shell import Shell

pytestmark = pytest.mark.lab

DAY = 20_254
NOON = DAY * DAY_MS + DAY_MS // 2
NEXT_NIGHT = (DAY + 1) * DAY_MS + 3 * 3_600_000


def install(number: int) -> str:
    return f"{number:032x}"


def upload(root: Path, events: list[Event], received: int = NEXT_NIGHT - 1) -> None:
    rows = [segment_format.encode_line(codec.encode(event), received, None) for event in events]
    name = segment_format.new_file_name("segments", FakeClock(received))
    LocalObjectStore(root).put(name, segment_format.pack(rows))


def slates(number: int, *values: float, wall: int = NOON, **fields: object) -> list[Event]:
    """Return an install's slates of two slots, whose first has an outcome of each value."""
    make = EventFactory(install(number), 1_000_000 * number + 1)
    clock = ClockReading(wall, 5_000, "b" * 32)
    events: list[Event] = []
    for value in values:
        decision = make.decision(seq=len(events) + 1, clock=clock, **fields)
        events.append(decision)
        events.append(make.outcome(decision, 0, value, seq=len(events) + 1, clock=clock))
    return events


def loss(number: int, seq: int, reason: str, decisions: int, wall: int = NOON) -> Loss:
    clock = ClockReading(wall, 5_000, "b" * 32)
    id = f"{10**9 + 1000 * number + seq:032x}"
    return Loss(id, install(number), seq, clock, reason, decisions=decisions)


def test_a_day_is_counted(tmp_path: Path) -> None:
    """Slates, installs, exploration and clicks of the last whole day are counted by hand's result;
    those of the days beside it are not.
    """
    newcomer = [
        Slot("red", 0, False, 0.9, 0.9),
        Slot("new", 51, True, 0.01, 0.01, newcomer=True),
        Slot("pin", 53, False, 1.0, 1.0, pinned=True),
    ]
    upload(tmp_path, slates(1, 1.0, -1.0))
    upload(tmp_path, slates(2, -1.0, -1.0, release=4))
    upload(tmp_path, slates(3, 1.0, slate=newcomer, newcomers=3, newcomer_rate=0.03))
    upload(tmp_path, slates(4, 1.0, 1.0, wall=NOON - DAY_MS))
    upload(tmp_path, slates(5, 1.0, 1.0, wall=NEXT_NIGHT - 60_000))
    figures = monitor(str(tmp_path), FakeClock(NEXT_NIGHT)).figures()
    assert figures["day_timestamp_seconds"] == DAY * 86_400
    assert figures["decisions"] == {"3": 3, "4": 2}
    assert figures["installs"] == {"3": 2, "4": 1}
    assert figures["explored_share"] == pytest.approx(5 / 10)
    assert figures["newcomers_share"] == pytest.approx(1 / 10)
    assert figures["judged_slots"] == pytest.approx(5)
    assert figures["click_rate"] == pytest.approx(2 / 5)
    assert figures["known_installs"] == 5
    assert figures.keys() == FLEET.keys()


def test_losses_and_gaps_are_counted(tmp_path: Path) -> None:
    """Declared losses count by the device's reasons, free texts of the collector as one; gaps and
    clones count as such, and their clicks for nothing.
    """
    upload(tmp_path, [*slates(1, -1.0), loss(1, 9, "full", 6)])
    upload(tmp_path, [*slates(2, -1.0), loss(2, 5, "slate: expected text", 2)])
    upload(tmp_path, [slates(3, 1.0)[1]])  # its decision is missing
    upload(tmp_path, [*slates(4, 1.0), *slates(4, -1.0, release=9)])
    figures = monitor(str(tmp_path), FakeClock(NEXT_NIGHT)).figures()
    assert figures["lost_events"] == {"any": 8, "full": 6, "rejected": 2}
    assert figures["missing_events"] == 1
    assert figures["incomplete_installs"] == 1
    assert figures["cloned_installs"] == 1
    assert figures["judged_slots"] == pytest.approx(2)
    assert figures["click_rate"] == 0.0


def test_texts_out_of_domain_are_summed(tmp_path: Path) -> None:
    """What decisions tell of texts is summed by kind; without any text the share is NaN."""
    upload(tmp_path, slates(1, 1.0, texts=TextCounts(0, 0, 16, 4)))
    upload(tmp_path, slates(2, 1.0, texts=TextCounts(0, 0, 24, 2)))
    upload(tmp_path, slates(3, 1.0))
    figures = monitor(str(tmp_path), FakeClock(NEXT_NIGHT)).figures()
    assert figures["texts"] == {"items": 0, "queries": 40}
    shares = figures["texts_outside_share"]
    assert isinstance(shares, dict)
    assert shares["queries"] == pytest.approx(6 / 40)
    assert math.isnan(shares["items"])


def test_one_install_does_not_make_the_click_rate(tmp_path: Path) -> None:
    """An install with a hundred times the slots of the others counts for about one of them."""
    for number in range(1, 21):
        upload(tmp_path, slates(number, -1.0, -1.0))
    upload(tmp_path, slates(21, *[1.0] * 200))
    figures = monitor(str(tmp_path), FakeClock(NEXT_NIGHT)).figures()
    assert figures["click_rate"] == pytest.approx(1 / 21, abs=0.01)


def test_a_day_without_events_has_no_shares(tmp_path: Path) -> None:
    """Shares of nothing are NaN, which no alert fires on, and counts are 0 under a label."""
    upload(tmp_path, slates(1, 1.0))
    figures = monitor(str(tmp_path), FakeClock(NEXT_NIGHT + 5 * DAY_MS)).figures()
    assert figures["decisions"] == figures["installs"] == {"none": 0}
    for name in ("click_rate", "explored_share", "newcomers_share"):
        assert isinstance(figures[name], float)
        assert math.isnan(figures[name])


def test_labels_are_bounded(tmp_path: Path) -> None:
    """Of many releases the most used are told apart, and nothing is lost in the sum."""
    for release in range(1, MAX_RELEASES + 11):
        upload(tmp_path, slates(release, 1.0, release=release))
    upload(tmp_path, slates(99, 1.0, release=MAX_RELEASES + 10))
    decisions = monitor(str(tmp_path), FakeClock(NEXT_NIGHT)).figures()["decisions"]
    assert isinstance(decisions, dict)
    assert len(decisions) == MAX_RELEASES + 1
    assert decisions[str(MAX_RELEASES + 10)] == 2
    assert sum(decisions.values()) == MAX_RELEASES + 11


def test_the_command_prints_what_it_pushes(
    tmp_path: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sanderling monitor` prints each figure, and null for a share of nothing; a store that is
    missing is an error.
    """
    monkeypatch.setattr(app, "entry_points", lambda group: declared(group))
    upload(tmp_path / "events", slates(1, 1.0))
    found = shell.json("monitor", "--events", tmp_path / "events")
    assert FLEET.keys() <= found.keys()
    assert found["click_rate"] is None
    status, text, _ = shell.run("monitor", "--events", tmp_path / "events")
    assert status == 0
    assert "last alarm          click_rate none, lost_events none," in text
    status, _, error = shell.run("monitor", "--events", tmp_path / "none")
    assert status == 1
    assert "none" in error


def test_days_are_remembered(tmp_path: Path) -> None:
    """Days whose files are gone stay in the store's file, by sums alone; of a day that is read
    again with fewer slates the earlier sums stay, with more they are replaced.
    """
    upload(tmp_path, slates(1, 1.0, -1.0))
    monitor(str(tmp_path), FakeClock(NEXT_NIGHT))
    upload(tmp_path, slates(2, 1.0))
    monitor(str(tmp_path), FakeClock(NEXT_NIGHT))
    store = LocalObjectStore(tmp_path)
    assert install(1).encode() not in store.get(FILE)
    for name in store.names("segments"):
        store.delete(name)
    upload(tmp_path, slates(3, 1.0))
    figures = monitor(str(tmp_path), FakeClock(NEXT_NIGHT)).figures()
    assert figures["decisions"] == {"3": 3}
    store.put(FILE, b"[]")
    with pytest.raises(EventError, match=r"monitor/days\.json: expected the days"):
        monitor(str(tmp_path), FakeClock(NEXT_NIGHT))


def test_a_fallen_click_rate_is_told(tmp_path: Path) -> None:
    """After sixty quiet days a click rate that halves raises an alarm within ten days, on the day
    that the figure names; the other figures raise none.
    """
    rng = np.random.default_rng(0)
    days = {}
    for day in range(75):
        rate = 0.2 * (0.5 if day >= 60 else 1.0)
        clicks = float(rng.binomial(5000, rate))
        days[day] = FleetDay({"1": 2000}, slots=10_000, judged=5000.0, clicks=clicks)
    found = changed(days)
    alarm = found["click_rate"].alarm
    assert alarm is not None
    assert 60 <= alarm < 70
    assert [found[name].alarm for name in WATCHED if name != "click_rate"] == [None] * 3
    report = FleetReport(74, days[74], Completeness(), found)
    told = report.figures()["changed_timestamp_seconds"]
    assert told == {**dict.fromkeys(WATCHED, 0), "click_rate": alarm * 86_400}


def test_days_with_little_on_them_say_nothing() -> None:
    """A day with fewer judged slots or texts than asked for is not a day of the series."""
    few = FleetDay({"1": 3}, judged=20.0, clicks=0.0, texts={"items": 20}, outside={"items": 20})
    assert all(watched.value(few) is None for watched in WATCHED.values())
