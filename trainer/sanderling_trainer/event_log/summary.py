"""Summary of a log: counts, times and a digest, kept after its events have left the memory."""

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
    """Sums over the partitions of a log."""

    received: int = 0
    """Lines of all segments, repeated ones included."""
    duplicates: int = 0
    conflicts: int = 0
    missing: int = 0
    decisions: int = 0
    outcomes: int = 0
    observations: int = 0
    installs: int = 0
    incomplete: list[str] = field(default_factory=list)
    """Installs with missing events."""
    cloned: list[str] = field(default_factory=list)
    """Installs whose identity more than one device, or a restored one, has used."""
    earliest: int = 0
    """Start of the first day (UTC), in wall ms since 1970; 0 for an empty log.

    The earliest 1 % of events are ignored: a few wrong clocks must not decide when a log begins.
    """
    latest: int = 0
    """Time of the last event in wall ms since 1970; 0 for an empty log.

    A device's clock cannot decide it: no corrected time is later than the receipt.
    """
    misdated: int = 0
    """Events of impossible times, which count as of their receipt."""

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()
        self._events_of_day: Counter[int] = Counter()
        self.events_of: Counter[str] = Counter()  # by install

    def add(self, log: EventLog) -> None:
        """Add one more partition; partitions come in the order of installs."""
        self.received += log.received
        self.duplicates += log.duplicates
        self.conflicts += log.conflicts
        self.missing += log.missing
        self.decisions += log.decisions()
        self.outcomes += log.outcomes()
        self.observations += log.observations()
        self.misdated += log.misdated
        self.incomplete += sorted(log.incomplete)
        self.cloned += sorted(log.cloned)

        if log.time:
            self._events_of_day.update(time // DAY_MS for time in log.time.values())
            self.earliest = DAY_MS * self._first_day()
            self.latest = max(self.latest, *log.time.values())

        events = chain(*log.events.values(), log.losses)
        names = sorted((event.install, event.id) for event in events)
        self.installs += len({install for install, _ in names})
        self.events_of.update(install for install, _ in names)
        for install, id in names:
            self._digest.update(f"{install}/{id}\n".encode())

    def _first_day(self) -> int:
        days = sorted(self._events_of_day)
        ignored = self._events_of_day.total() // 100
        so_far = accumulate(self._events_of_day[day] for day in days)
        return next(day for day, events in zip(days, so_far, strict=True) if events > ignored)

    def sha256(self) -> str:
        """Return the digest of the ids of all events, the same however the log is partitioned."""
        return self._digest.hexdigest()


def summarize(partitions: Iterable[EventLog]) -> LogSummary:
    """Return the summary of all partitions of a log."""
    summary = LogSummary()
    for log in partitions:
        summary.add(log)
    return summary
