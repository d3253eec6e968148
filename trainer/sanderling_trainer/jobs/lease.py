"""A lease on a store: one job works on it at a time, and the lease of a dead job expires.

Leases are the files `jobs/<number>`; the highest number is the current one. A job whose predecessor
has ended, or has not renewed its lease in time, creates the next number, and the store lets one of
several concurrent jobs succeed. The highest file is never deleted, so that a late job cannot create
a number that was used before. A job that renews and one that takes over both write first and check
then, so that at least one of them detects the other. Clocks of machines may differ by a few
minutes.

A job may be suspended or killed while it writes a file, which then appears after another has taken
over. So it first records the name of a new file in its lease, and the next job creates an empty
file of that name if there is none: the late write then fails.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import msgspec

from sanderling.errors import SanderlingError
from sanderling.runtime.clock import Clock, uuid7
from sanderling_trainer.event_log import daily_parquet, history_files
from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, ObjectStore

FOLDER = "jobs"
# A request is tried twice, and clocks differ by minutes: no request outlives the lease that it
# began under.
MIN_REMAINING_S = 2 * JOB_TIMEOUT.total_seconds() + 300
LEASE_S = MIN_REMAINING_S + 300
ENDED = 0


class BusyError(SanderlingError):
    """Another job works on this store."""


class LeaseRecord(msgspec.Struct, frozen=True):
    """The content of a lease's file; times are wall ms since 1970."""

    id: str
    """Random, so that a job recognizes its own record."""
    job: str
    owner: str
    """Host and process of the job."""
    since: int
    until: int
    """When the lease expires; `ENDED` when the job has ended."""
    pending_file: str | None = None
    """A daily or history file that is being written: it may exist, or may still appear."""


class Lease:
    """The right to change the files of a store, until it expires."""

    def __init__(self, store: ObjectStore, clock: Clock, job: str, owner: str) -> None:
        self._store = store
        self._clock = clock
        self._number = 0
        now_ms = clock.wall_ms()
        self._record = LeaseRecord(uuid7(now_ms), job, owner, now_ms, ENDED)

    def acquire(self) -> None:
        """Take the lease; raise `BusyError` when another job holds it."""
        before = self._highest()
        self._check_ended(before)
        self._number = before + 1
        self._record = self._extended()
        try:
            self._store.create(_file_of(self._number), msgspec.json.encode(self._record))
        except FileExistsError:
            # If the answer to a first try got lost, the second one finds the record of this job.
            if self._read(self._number) != self._record:
                raise self._busy_error(self._number) from None

        try:
            self.check_held()
            self._check_ended(before)
            self._remove_earlier()
        except BaseException:
            with suppress(OSError):
                self.release()
            raise

    def renew(self) -> None:
        """Extend the lease to `MIN_REMAINING_S` or more; raise `BusyError` if another took over.

        Call it before each file that is read and each change; mostly it only looks at the clock.
        """
        if self._clock.wall_ms() <= self._record.until - MIN_REMAINING_S * 1000:
            return
        self.check_held()
        self._write(self._extended())
        self.check_held()

    def create(self, name: str, data: bytes) -> None:
        """Write a new daily or history file; raise `BusyError` if another job took over.

        In that case the file cannot appear later.
        """
        self.check_held()
        self._write(msgspec.structs.replace(self._extended(), pending_file=name))
        self.check_held()
        # It exists if the answer to a first try got lost, or if another job took over, which
        # `check_held` detects.
        with suppress(FileExistsError):
            self._store.create(name, data)
        self.check_held()
        self._record = msgspec.structs.replace(self._record, pending_file=None)

    def check_held(self) -> None:
        """Raise `BusyError` if another job took over, which may have read the last change.

        Call it after each change.
        """
        highest = self._highest()
        if highest > self._number:
            raise self._busy_error(highest)

    def release(self) -> None:
        """Record that the job has ended."""
        self._write(msgspec.structs.replace(self._record, until=ENDED))

    def _remove_earlier(self) -> None:
        """Remove the leases of earlier jobs, after making sure that their pending files exist."""
        for number in self._numbers():
            if number >= self._number:
                continue
            record = self._read(number)
            if record is not None and record.pending_file is not None:
                with suppress(FileExistsError):
                    self._store.create(record.pending_file, _empty_file(record.pending_file))
            self._store.delete(_file_of(number))

    def _extended(self) -> LeaseRecord:
        until = self._clock.wall_ms() + round(LEASE_S * 1000)
        return msgspec.structs.replace(self._record, until=until)

    def _write(self, record: LeaseRecord) -> None:
        self._record = record
        self._store.put(_file_of(self._number), msgspec.json.encode(record))

    def _numbers(self) -> list[int]:
        names = [name.removeprefix(f"{FOLDER}/") for name in self._store.names(FOLDER)]
        return [int(name) for name in names if name.isdecimal()]

    def _highest(self) -> int:
        return max(self._numbers(), default=0)

    def _check_ended(self, number: int) -> None:
        record = self._read(number) if number else None
        if record is not None and record.until > self._clock.wall_ms():
            raise self._busy_error(number)

    def _read(self, number: int) -> LeaseRecord | None:
        """Return the record of a lease; None when the next job has removed it."""
        name = _file_of(number)
        try:
            return msgspec.json.decode(self._store.get(name), type=LeaseRecord)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise BusyError(
                f"{name}: expected a job's lease: {error}: remove the file when no job runs"
            ) from error

    def _busy_error(self, number: int) -> BusyError:
        expected = "expected no other job on this store"
        record = self._read(number)
        if record is None:
            return BusyError(f"{expected}, found one that has just begun; start again later")
        if record.until == ENDED:
            return BusyError(
                f"{expected}, found that `{record.job}` of {record.owner} took over and ended "
                "while this one was suspended or waited for the store; start again"
            )
        return BusyError(
            f"{expected}, found `{record.job}` of {record.owner}, begun {_date(record.since)}; "
            f"its lease lasts until {_date(record.until)} and is renewed while it works; "
            "start again when it has ended or, if it was killed, after that time"
        )


@contextmanager
def exclusive_job(
    store: ObjectStore, clock: Clock, job: str, owner: str | None = None
) -> Iterator[Lease]:
    """Hold a store's lease; `owner` is this process if not given.

    Raises `BusyError` when another job holds it.
    """
    lease = Lease(store, clock, job, owner or f"{socket.gethostname()}, process {os.getpid()}")
    lease.acquire()
    try:
        yield lease
    finally:
        lease.release()


def _empty_file(name: str) -> bytes:
    is_history = name.startswith(f"{history_files.FOLDER}/")
    return history_files.EMPTY if is_history else daily_parquet.pack([], [])


def _file_of(number: int) -> str:
    return f"{FOLDER}/{number:012d}"


def _date(wall_ms: int) -> str:
    return datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
