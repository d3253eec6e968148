"""Erasing an install: its tombstone first, then every file that mentions it is written anew without it.

Collectors ask for tombstones every few seconds, so a second pass comes after the last of them must know. Lines of
installs that were erased before go too, if they came back: with a commit that took longer, or a job that slept.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sanderling.errors import SanderlingError
from sanderling.runtime.clock import Clock
from sanderling_trainer.event_log import daily_parquet, tombstones
from sanderling_trainer.event_log import segment_format as lines
from sanderling_trainer.event_log.object_store import REMOTE_TIMEOUT, ObjectStore
from sanderling_trainer.event_log.tombstones import MAX_AGE_S
from sanderling_trainer.jobs.lease import Lease, only_job
from sanderling_trainer.jobs.purge import sweep_daily, sweep_lines

REQUESTS = 6  # a collector asks for tombstones and renewals, waits for two files of the commit before, and writes two
COMMIT_S = REQUESTS * 2 * REMOTE_TIMEOUT.total_seconds()  # for each is tried twice
SETTLE_S = (
    MAX_AGE_S + COMMIT_S
)  # what a collector knows may be so old, and a commit may take so long


class InstallError(SanderlingError):
    """What was given is no install's id."""


@dataclass
class Erased:
    """What a job did: files written anew or deleted, and lines that are gone; files that are not the log's, unread."""

    files: int = 0
    lines: int = 0
    foreign: list[str] = field(default_factory=list)

    def add(self, gone: int) -> None:
        """Count the lines that are gone from a file."""
        self.files, self.lines = self.files + bool(gone), self.lines + gone


def erase(
    store: ObjectStore, install: str, clock: Clock, pause: Callable[[float], None] = time.sleep
) -> Erased:
    """Remove every line that mentions an install, and refuse its uploads for ever.

    Raises `BusyError` when another job works on the store.
    """
    if not re.fullmatch("[0-9a-f]{32}", install):
        raise InstallError(f"expected an install's id of 32 hex digits, found `{install}`")
    with only_job(store, clock, "erase") as lease:
        store.put(tombstones.tombstone(install), b"")
        done = Erased()
        _sweep(store, install, done, lease)
        pause(SETTLE_S)
        store.clean(COMMIT_S)
        _sweep(store, install, done, lease)
    return done


def _sweep(store: ObjectStore, install: str, done: Erased, lease: Lease) -> None:
    erased = tombstones.Erased(store)

    def goes(row: bytes) -> bool:
        return tombstones.mentions(row, install) or erased.sent(row)

    names = [*store.names(lines.SEGMENTS), *store.names(lines.DEAD)]
    done.foreign = [name for name in names if not name.endswith(lines.SUFFIX)]
    for name in names:
        if name.endswith(lines.SUFFIX):
            done.add(sweep_lines(store, name, goes, lease))
    for name in store.names(daily_parquet.FOLDER):
        done.add(sweep_daily(store, name, goes, lease))
