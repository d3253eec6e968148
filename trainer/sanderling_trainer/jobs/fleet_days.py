"""What a fleet did on each day (UTC), counted from the log of its events: sums only, no install and
no user."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import msgspec
import numpy as np

from sanderling.events.schema import Decision
from sanderling_trainer.event_log.reader import EventLog
from sanderling_trainer.jobs.fleet_clicks import DAY_MS, arms_of, judged_decisions

DEVICE_REASONS = ("full", "forgotten", "queue_full", "corrupt", "unencodable", "outbox_reset")
REJECTED = "rejected"
"""Stands for every reason with which the collector rejected an event: they are free texts."""


class FleetDay(msgspec.Struct, forbid_unknown_fields=True):
    """Sums over the events of one day, by their corrected times."""

    decisions: dict[str, int] = {}
    """Slates, by release."""

    installs: dict[str, int] = {}
    """Installs with a slate of the day, by release."""

    slots: int = 0
    """Slots that a policy chose: all but the pinned ones."""

    explored: int = 0
    """Of these, those that exploration chose, newcomers included."""

    newcomers: int = 0
    """Of these, those that the quota for newcomers chose."""

    judged: float = 0.0
    """Slots with an exact outcome, of installs that are neither cloned nor incomplete; an install
    with unusually many counts for fewer."""

    clicks: float = 0.0
    """Of these, those with a reward above 0."""

    texts: dict[str, int] = {}
    """Texts that devices encoded: `items` that apps added, and `queries`."""

    outside: dict[str, int] = {}
    """Of these, those out of the release's domain."""

    lost: dict[str, int] = {}
    """Events that devices declared as lost, by reason."""


class Completeness(msgspec.Struct):
    """What the whole log lacks, whatever its day."""

    installs: int = 0
    missing: int = 0
    """Events that neither arrived nor were declared lost."""
    incomplete: int = 0
    """Installs with missing events."""
    cloned: int = 0
    """Installs whose identity two devices have used."""


def tally(logs: Iterable[EventLog]) -> tuple[dict[int, FleetDay], Completeness]:
    """Return the sums of each day that has an event, by its number since 1970, and what the log
    lacks.

    logs: the partitions of a log; all events of an install are in one of them.
    """
    days: dict[int, FleetDay] = defaultdict(FleetDay)
    completeness = Completeness()

    def counted() -> Iterator[EventLog]:
        for log in logs:
            _add_decisions(days, log)
            _add_losses(days, log)
            completeness.installs += len({install for install, _ in log.events})
            completeness.missing += log.missing
            completeness.incomplete += len(log.incomplete)
            completeness.cloned += len(log.cloned)
            yield log

    found = judged_decisions(counted(), lambda decision: True)
    day_of = np.array(found.time, np.int64) // DAY_MS
    for day in np.unique(day_of).tolist():
        [arm] = arms_of(found, [day_of == day])
        days[day].clicks = float(arm.clicks.sum())
        days[day].judged = float(arm.slots.sum())
    return dict(days), completeness


def _add_decisions(days: dict[int, FleetDay], log: EventLog) -> None:
    decisions: dict[int, Counter[str]] = defaultdict(Counter)
    installs: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for (install, _), events in log.events.items():
        for event in events:
            if not isinstance(event, Decision):
                continue
            day = log.time[event.id] // DAY_MS
            release = str(event.release)
            decisions[day][release] += 1
            installs[day].add((release, install))
            _add_slots(days[day], event)

    for day, counts in decisions.items():
        tallied = days[day]
        tallied.decisions = _sum(tallied.decisions, counts)
        tallied.installs = _sum(tallied.installs, Counter(release for release, _ in installs[day]))


def _add_slots(day: FleetDay, decision: Decision) -> None:
    chosen = [slot for slot in decision.slate if slot.pinned is not True]
    day.slots += len(chosen)
    day.explored += sum(slot.explored for slot in chosen)
    day.newcomers += sum(slot.newcomer is True for slot in chosen)
    if counts := decision.texts:
        of_kind = {"items": counts.items, "queries": counts.queries}
        outside = {"items": counts.items_outside, "queries": counts.queries_outside}
        day.texts = _sum(day.texts, of_kind)
        day.outside = _sum(day.outside, outside)


def _add_losses(days: dict[int, FleetDay], log: EventLog) -> None:
    for loss in log.losses:
        reason = loss.reason if loss.reason in DEVICE_REASONS else REJECTED
        events = loss.decisions + loss.outcomes + loss.observations
        tallied = days[log.time[loss.id] // DAY_MS]
        tallied.lost = _sum(tallied.lost, {reason: events})


def _sum(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    return dict(Counter(first) + Counter(second))
