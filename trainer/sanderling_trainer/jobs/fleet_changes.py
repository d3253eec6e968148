"""Which figures of a fleet have changed, and the days that are remembered for it in the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from sanderling.errors import EventError
from sanderling_trainer.evaluation.change_detection import changes
from sanderling_trainer.event_log.object_store import ObjectStore
from sanderling_trainer.jobs.fleet_days import FleetDay

FILE = "monitor/days.json"
REMEMBERED = 400
"""Days."""

MIN_SLOTS = 100
"""Judged slots, or slates, of a day that counts."""

MIN_TEXTS = 50
"""Texts of a day that counts."""

QUIET_DAYS = 365
"""Days between two false alarms of all watched figures together, on average, at least."""


class Watched(NamedTuple):
    """A figure whose change raises an alarm."""

    value: Callable[[FleetDay], float | None]
    """The figure of a day, None where the day has too little for it."""

    rises: bool
    """Whether an alarm is a rise, else a fall."""


class Change(NamedTuple):
    """What the test says of a figure."""

    evidence: float
    """The statistic at the end of the last day; `limit()` raises an alarm, and then it restarts."""

    alarm: int | None
    """The last day that raised one, since 1970; None if none did."""


def _click_rate(day: FleetDay) -> float | None:
    return day.clicks / day.judged if day.judged >= MIN_SLOTS else None


def _lost(day: FleetDay) -> float | None:
    decisions = sum(day.decisions.values())
    lost = sum(day.lost.values())
    return lost / (lost + decisions) if decisions >= MIN_SLOTS else None


def _outside(kind: str) -> Callable[[FleetDay], float | None]:
    def share(day: FleetDay) -> float | None:
        texts = day.texts.get(kind, 0)
        return day.outside.get(kind, 0) / texts if texts >= MIN_TEXTS else None

    return share


WATCHED: Mapping[str, Watched] = {
    "click_rate": Watched(_click_rate, rises=False),
    "lost_events": Watched(_lost, rises=True),
    "items_outside": Watched(_outside("items"), rises=True),
    "queries_outside": Watched(_outside("queries"), rises=True),
}


def limit() -> float:
    """Return the statistic that raises an alarm: each figure may raise its part of the false
    ones."""
    return float(QUIET_DAYS * len(WATCHED))


def changed(days: Mapping[int, FleetDay]) -> dict[str, Change]:
    """Return what the days, by their numbers since 1970, say of each watched figure."""
    found = {}
    for name, watched in WATCHED.items():
        values = {day: watched.value(days[day]) for day in sorted(days)}
        series = {day: value for day, value in values.items() if value is not None}
        order = list(series)
        result = changes(order, np.array(list(series.values())), limit(), rises=watched.rises)
        evidence = float(result.evidence[-1]) if order else 0.0
        alarm = order[result.alarms[-1]] if result.alarms else None
        found[name] = Change(evidence, alarm)
    return found


def remember(store: ObjectStore, days: Mapping[int, FleetDay]) -> dict[int, FleetDay]:
    """Return the days of the store's file and of the log, and write them into the file.

    Of a day that both have, the one with more slates counts: events arrive late, and files of the
    log are deleted.

    Raises `EventError` where the file is damaged.
    """
    known = _read(store)
    merged = {**known, **days}
    for day, of_file in known.items():
        if sum(of_file.decisions.values()) > sum(merged[day].decisions.values()):
            merged[day] = of_file
    kept = {day: merged[day] for day in sorted(merged)[-REMEMBERED:]}
    if kept != known:
        store.put(FILE, msgspec.json.encode(kept))
    return kept


def _read(store: ObjectStore) -> dict[int, FleetDay]:
    if not store.has(FILE):
        return {}
    try:
        return msgspec.json.decode(store.get(FILE), type=dict[int, FleetDay])
    except msgspec.MsgspecError as error:
        raise EventError(
            f"{FILE}: expected the days that `sanderling monitor` wrote, found {error};"
            " delete it to begin anew"
        ) from error
