"""The figures of a fleet's last whole day, from the events of its devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sanderling.runtime.clock import Clock
from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, open_store
from sanderling_trainer.event_log.reader import read_partitions
from sanderling_trainer.jobs.figures import Labelled
from sanderling_trainer.jobs.fleet_changes import Change, changed, limit, remember
from sanderling_trainer.jobs.fleet_clicks import DAY_MS
from sanderling_trainer.jobs.fleet_days import Completeness, FleetDay, tally
from sanderling_trainer.jobs.night_log import check_events

MAX_RELEASES = 20
"""Releases that are told apart, those with the most installs; the rest are one."""

REST = "others"
TEXTS = ("items", "queries")


@dataclass(frozen=True)
class FleetReport:
    """What a fleet did on a day, and what its log lacks."""

    day: int
    """Since 1970 (UTC)."""

    of_day: FleetDay

    completeness: Completeness

    changes: Mapping[str, Change]
    """By watched figure, up to that day."""

    def figures(self) -> dict[str, float | Labelled]:
        """Return the values of the figures in `figures.FLEET`; a share of nothing is NaN."""
        day = self.of_day
        return {
            "day_timestamp_seconds": self.day * DAY_MS / 1000,
            "decisions": _most(day.decisions, day.installs),
            "installs": _most(day.installs, day.installs),
            "explored_share": _share(day.explored, day.slots),
            "newcomers_share": _share(day.newcomers, day.slots),
            "judged_slots": day.judged,
            "click_rate": _share(day.clicks, day.judged),
            "lost_events": {"any": sum(day.lost.values()), **day.lost},
            "texts": {kind: day.texts.get(kind, 0) for kind in TEXTS},
            "texts_outside_share": {
                kind: _share(day.outside.get(kind, 0), day.texts.get(kind, 0)) for kind in TEXTS
            },
            "missing_events": self.completeness.missing,
            "incomplete_installs": self.completeness.incomplete,
            "cloned_installs": self.completeness.cloned,
            "known_installs": self.completeness.installs,
            "change_evidence": {name: change.evidence for name, change in self.changes.items()},
            "change_limit": limit(),
            "changed_timestamp_seconds": {
                name: 0 if change.alarm is None else change.alarm * DAY_MS / 1000
                for name, change in self.changes.items()
            },
        }


def monitor(events: str, clock: Clock) -> FleetReport:
    """Return what the devices' events say of the last whole day (UTC) before now, and which figures
    have changed up to then; the days are remembered in the store.

    events: the folder or URL of the collector's store. Events that devices send later are missing.

    Raises `FileNotFoundError` where the store is missing, `EventError` where a file is damaged.
    """
    check_events(events)
    tallied, completeness = tally(read_partitions(events))
    day = clock.wall_ms() // DAY_MS - 1
    whole = {number: of_day for number, of_day in tallied.items() if number <= day}
    days = remember(open_store(events, JOB_TIMEOUT), whole)
    return FleetReport(day, days.get(day, FleetDay()), completeness, changed(days))


def _most(counts: dict[str, int], installs: dict[str, int]) -> dict[str, float]:
    """Return the counts of the releases with the most installs, and those of the others in one."""
    if not counts:
        return {"none": 0}
    named = sorted(counts, key=lambda release: -installs.get(release, 0))[:MAX_RELEASES]
    kept: Counter[str] = Counter()
    for release, count in counts.items():
        kept[release if release in named else REST] += count
    return dict(kept)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
