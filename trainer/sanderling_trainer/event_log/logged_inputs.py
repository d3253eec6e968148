"""Finds a logged decision and the events from which its user's state was made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

from sanderling.events.schema import Decision, Event
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling_trainer.event_log import history_files
from sanderling_trainer.event_log.history_table import KnownHistory, steps_of
from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, open_store
from sanderling_trainer.event_log.reader import read_partitions
from sanderling_trainer.event_log.state_replay import split_at_resets

Steps = tuple[tuple[str, str], ...]


class LoggedDecision(NamedTuple):
    """A decision of a log."""

    decision: Decision

    time: int
    """Wall ms since 1970, corrected for errors of the device's clock."""

    steps: Steps | None
    """The item ids and kinds of the events that made the user's state, oldest first; None where the
    log's events make another one."""


def find_decision(store: str, decision: str) -> LoggedDecision:
    """Return a decision of a folder's or object store's log.

    Raises `ValueError` where the log lacks it, `EventError` when a file is damaged.
    """
    for found in _decisions(store):
        if found.event.id == decision:
            return found.logged()
    raise ValueError(
        f"{store}: expected the decision {decision!r:.80} in this log, found none of this id; it"
        " may not have been uploaded yet, or its install was erased"
    )


def latest_decision(store: str, release: int) -> LoggedDecision:
    """Return the latest decision of a release; raise `ValueError` where the log has none."""
    of_release = (found for found in _decisions(store) if found.event.release == release)
    latest = max(of_release, key=lambda found: (found.time, found.event.id), default=None)
    if latest is None:
        raise ValueError(f"{store}: expected decisions of release {release}, found none")
    return latest.logged()


class _Found(NamedTuple):
    """A decision among the events of its pseudonym since the last reset of the state."""

    event: Decision
    time: int
    neighbours: Sequence[Event]

    def logged(self) -> LoggedDecision:
        steps = tuple((item, kind) for event in self.neighbours for item, kind in steps_of(event))
        steps = steps[: self.event.state_events]
        checksum = reduce(lambda checksum, step: next_checksum(checksum, *step), steps, NO_EVENTS)
        is_rebuilt = checksum == self.event.state_checksum
        return LoggedDecision(self.event, self.time, steps if is_rebuilt else None)


def _decisions(store: str) -> Iterator[_Found]:
    known = KnownHistory.of(history_files.read(open_store(store, JOB_TIMEOUT)))
    for log in read_partitions(store):
        restored = known.restored(log)
        for events in restored.events.values():
            for part in split_at_resets(events):
                for event in part:
                    if isinstance(event, Decision):
                        yield _Found(event, restored.time.get(event.id, event.clock.wall), part)
