"""What a log was, once its events have left the memory: counts, times, and a digest."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate, chain

from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.event_log.reader import EventLog

DAY_MS = 1000 * DAY


@dataclass
class LogSummary:
    """Sums over the parts of a log; `earliest` and `latest` are in wall ms since 1970, 0 where there is no event.

    `earliest` is when the first day (UTC) began, without the earliest one in a hundred events: a few false clocks must
    not say when a log begins.
    """

    received: int = 0
    duplicates: int = 0
    conflicts: int = 0
    missing: int = 0
    decisions: int = 0
    outcomes: int = 0
    observations: int = 0
    installs: int = 0
    incomplete: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    earliest: int = 0
    latest: int = 0

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()
        self._days: Counter[int] = Counter()

    def add(self, log: EventLog) -> None:
        """Count one more part; parts come in the order of installs."""
        self.received += log.received
        self.duplicates += log.duplicates
        self.conflicts += log.conflicts
        self.missing += log.missing
        self.decisions += log.decisions()
        self.outcomes += log.outcomes()
        self.observations += log.observations()
        self.incomplete += sorted(log.incomplete)
        self.doubled += sorted(log.doubled)
        if log.time:
            self._days.update(time // DAY_MS for time in log.time.values())
            self.earliest = DAY_MS * self._first_day()
            self.latest = max(self.latest, *log.time.values())
        names = sorted(
            (event.install, event.id) for event in chain(*log.events.values(), log.losses)
        )
        self.installs += len({install for install, _ in names})
        for install, id in names:
            self._digest.update(f"{install}/{id}\n".encode())

    def _first_day(self) -> int:
        days, few = sorted(self._days), self._days.total() // 100
        so_far = accumulate(self._days[day] for day in days)
        return next(day for day, events in zip(days, so_far, strict=True) if events > few)

    def sha256(self) -> str:
        """Return the digest of the ids of all events, the same in however many parts they came."""
        return self._digest.hexdigest()


def facts_of(logs: Iterable[EventLog]) -> LogSummary:
    """Return the facts of all parts."""
    facts = LogSummary()
    for log in logs:
        facts.add(log)
    return facts
