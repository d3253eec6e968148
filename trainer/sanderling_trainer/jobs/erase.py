"""The erasure job: writes the tombstone of an install, and twice rewrites files that mention it.

Collectors cache lookups of tombstones for some seconds, and a commit takes time; so the second pass
comes when the last of them must know. Lines of installs that were erased before are removed too, in
case a slow commit, or a job that slept, has brought them back.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sanderling.errors import SanderlingError
from sanderling.runtime.clock import Clock
from sanderling_trainer.event_log import daily_parquet, history_files, segment_format
from sanderling_trainer.event_log.object_store import REMOTE_TIMEOUT, ObjectStore
from sanderling_trainer.event_log.token_installs import files_of
from sanderling_trainer.event_log.tombstones import (
    LOOKUP_CACHE_S,
    Tombstones,
    mentions,
    tombstone_file,
)
from sanderling_trainer.jobs.lease import Lease, exclusive_job
from sanderling_trainer.jobs.purge import purge_daily, purge_history, purge_lines

# A collector looks up tombstones and rotations, waits for the two files of the commit before, and
# writes two files; the client tries each request twice.
COMMIT_REQUESTS = 6
COMMIT_S = COMMIT_REQUESTS * 2 * REMOTE_TIMEOUT.total_seconds()
SETTLE_S = LOOKUP_CACHE_S + COMMIT_S


class InstallError(SanderlingError):
    """The given text is not the id of an install."""


@dataclass
class ErasureResult:
    """What an erasure did."""

    files: int = 0
    """Files rewritten or deleted."""
    lines: int = 0
    """Lines removed."""
    foreign: list[str] = field(default_factory=list)
    """Files in the log's folders that are not the log's; they were not read."""

    def add(self, lines: int) -> None:
        """Add a file of which so many lines were removed."""
        self.files += bool(lines)
        self.lines += lines


def erase(
    store: ObjectStore, install: str, clock: Clock, pause: Callable[[float], None] = time.sleep
) -> ErasureResult:
    """Remove every line that mentions an install; collectors refuse its uploads from now on.

    Raises `InstallError` for what is not an id, `BusyError` when another job works on the store.
    """
    if not re.fullmatch("[0-9a-f]{32}", install):
        raise InstallError(f"expected an install's id of 32 hex digits, found `{install}`")

    with exclusive_job(store, clock, "erase") as lease:
        store.put(tombstone_file(install), b"")
        result = ErasureResult()
        _purge_all(store, install, result, lease)
        pause(SETTLE_S)
        store.clean(COMMIT_S)
        _purge_all(store, install, result, lease)
    return result


def _purge_all(store: ObjectStore, install: str, result: ErasureResult, lease: Lease) -> None:
    erased = Tombstones(store)

    def should_purge(line: bytes) -> bool:
        return mentions(line, install) or erased.sent_by_erased(line)

    names = [*store.names(segment_format.SEGMENTS), *store.names(segment_format.DEAD)]
    result.foreign = [name for name in names if not name.endswith(segment_format.SUFFIX)]
    for name in names:
        if name.endswith(segment_format.SUFFIX):
            result.add(purge_lines(store, name, should_purge, lease))
    for name in store.names(daily_parquet.FOLDER):
        result.add(purge_daily(store, name, should_purge, lease))
    for name in store.names(history_files.FOLDER):
        result.add(purge_history(store, name, install, lease))
    for name in files_of(store, install):
        store.delete(name)
