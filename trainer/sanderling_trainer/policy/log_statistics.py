"""Statistics of a log that say how a policy should learn from it, before anything is fitted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.tables import Interactions
from sanderling_trainer.data.time_split import repeated_share
from sanderling_trainer.evaluation.inner_windows import is_ordinal

VISIT_HOURS = (0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0)
HOUR = 3600

MIN_REPEATED = 0.01  # share of repeated events above which users count as repeating
MIN_LATER = 0.3  # share of events in later visits below which there is too little to learn visits
MIN_TIED = 0.8  # share of events of one second above which a user's order inside a visit is none


@dataclass(frozen=True)
class LogStatistics:
    """What the choice of candidates depends on."""

    events: int
    users: int

    ordinal: bool
    """Whether times order a user's own events alone."""

    repeated: float
    """Share of events on an item that their user had before."""

    tied: float
    """Share of events in the same second as their user's previous one."""

    visit_hours: float
    """The gap that ends a visit: the length around which the fewest gaps lie."""

    later: float
    """Share of events in a visit after their user's first."""

    @staticmethod
    def of(log: Interactions) -> LogStatistics:
        """Measure a log."""
        order = np.argsort(log.user, kind="stable")
        user = log.user[order]
        gaps = np.diff(log.time[order])
        same_user = np.diff(user) == 0

        hours = _visit_hours(gaps[same_user])
        new_visit = np.append(True, ~same_user | (gaps > hours * HOUR))
        new_user = np.append(True, ~same_user)
        visit = np.cumsum(new_visit)
        first_visit = visit[new_user][np.cumsum(new_user) - 1]
        return LogStatistics(
            events=len(log),
            users=int(new_user.sum()),
            ordinal=is_ordinal(log),
            repeated=repeated_share(log),
            tied=float((gaps[same_user] == 0).mean()) if same_user.any() else 0.0,
            visit_hours=hours,
            later=float((visit > first_visit).mean()),
        )

    @property
    def repeats(self) -> bool:
        """Whether users come back to items they had."""
        return self.repeated > MIN_REPEATED

    @property
    def may_visit(self) -> bool:
        """Whether users come in visits of which there are enough to learn from."""
        return not self.ordinal and self.later >= MIN_LATER

    @property
    def may_be_single(self) -> bool:
        """Whether each event may be predicted from all before it."""
        return not self.may_visit or self.tied < MIN_TIED

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


def _visit_hours(gaps: NDArray[np.int64]) -> float:
    """Return the length in hours that the fewest gaps (seconds) are within a factor 2 of.

    Of equal ones the nearest to six hours.
    """
    hours = np.array(sorted(VISIT_HOURS, key=lambda value: abs(value - 6.0)))
    lengths = np.sort(gaps)
    near = np.searchsorted(lengths, 2 * hours * HOUR) - np.searchsorted(lengths, hours * HOUR / 2)
    return float(hours[int(np.argmin(near))])
