"""One job at a time on a store: a lease, which a job that died loses by itself. Refuses to know what jobs do.

Leases are the files `jobs/<number>`, and the highest number counts. A job whose predecessor has ended, or has not
renewed its lease in time, creates the next number; a store lets one of several succeed. The highest file is never
deleted, so that nobody who comes late can create a number that another has used. Both a job that renews and one that
takes over write first and look then, so that they cannot miss each other. The clocks of machines may differ by
minutes, not more.

A job may fall asleep, or die, while it writes a file, which then appears when another has taken over. So it notes the
name of a new file first, and who takes over puts an empty one in its place if it is not there: then it never comes.
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
from sanderling_trainer.event_log import daily_parquet
from sanderling_trainer.event_log.object_store import JOB_TIMEOUT, ObjectStore

FOLDER = "jobs"
KEPT_S = (
    2 * JOB_TIMEOUT.total_seconds() + 300
)  # a request is tried twice, and clocks differ by minutes
LEASE_S = KEPT_S + 300
ENDED = 0


class BusyError(SanderlingError):
    """Another job works on this store."""


class LeaseRecord(msgspec.Struct, frozen=True):
    """Who holds a lease: a fresh id, the job and its process; since when and until when, in wall ms since 1970.

    `begun` is the name of a new daily file that may be there, or come yet.
    """

    id: str
    job: str
    owner: str
    since: int
    until: int
    begun: str | None = None


class Lease:
    """The right to change what a store holds, until it is not renewed in time."""

    def __init__(self, store: ObjectStore, clock: Clock, job: str, owner: str) -> None:
        self._store, self._clock = store, clock
        self._number = 0
        now_ms = clock.wall_ms()
        self._note = LeaseRecord(uuid7(now_ms), job, owner, now_ms, ENDED)

    def take(self) -> None:
        """Become the one job, or raise `BusyError`."""
        before = self._highest()
        self._check_ended(before)
        self._number, self._note = before + 1, self._renewed()
        try:
            self._store.create(_name(self._number), msgspec.json.encode(self._note))
        except FileExistsError:
            if (
                self._read(self._number) != self._note
            ):  # a put whose first answer got lost is found to be there
                raise self._busy(self._number) from None
        try:
            self.check()
            self._check_ended(before)
            self._end_earlier()
        except BaseException:
            with suppress(OSError):
                self.release()
            raise

    def keep(self) -> None:
        """Hold the lease for `KEPT_S` from now; raise `BusyError` when another job took over.

        Before each file that is read and each change: it costs a look at the clock, most times.
        """
        if self._clock.wall_ms() <= self._note.until - KEPT_S * 1000:
            return
        self.check()
        self._write(self._renewed())
        self.check()

    def create(self, name: str, data: bytes) -> None:
        """Write a new daily file; raise `BusyError` when another job took over, since when it cannot appear."""
        self.check()
        self._write(msgspec.structs.replace(self._renewed(), begun=name))
        self.check()
        with suppress(
            FileExistsError
        ):  # a put whose first answer got lost, or the empty file of who took over
            self._store.create(name, data)
        self.check()
        self._note = msgspec.structs.replace(self._note, begun=None)

    def check(self) -> None:
        """Raise `BusyError` when another job took over, and may have read what this one changed. After each change."""
        highest = self._highest()
        if highest > self._number:
            raise self._busy(highest)

    def release(self) -> None:
        """Say that the job has ended."""
        self._write(msgspec.structs.replace(self._note, until=ENDED))

    def _end_earlier(self) -> None:
        """Remove the leases of earlier jobs, when what they have begun is there or cannot come any more."""
        for number in self._numbers():
            if number < self._number:
                note = self._read(number)
                if note is not None and note.begun is not None:
                    with suppress(FileExistsError):
                        self._store.create(note.begun, daily_parquet.pack([], []))
                self._store.delete(_name(number))

    def _renewed(self) -> LeaseRecord:
        return msgspec.structs.replace(
            self._note, until=self._clock.wall_ms() + round(LEASE_S * 1000)
        )

    def _write(self, note: LeaseRecord) -> None:
        self._note = note
        self._store.put(_name(self._number), msgspec.json.encode(note))

    def _numbers(self) -> list[int]:
        numbers = [name.removeprefix(f"{FOLDER}/") for name in self._store.names(FOLDER)]
        return [int(number) for number in numbers if number.isdecimal()]

    def _highest(self) -> int:
        return max(self._numbers(), default=0)

    def _check_ended(self, number: int) -> None:
        note = self._read(number) if number else None
        if note is not None and note.until > self._clock.wall_ms():
            raise self._busy(number)

    def _read(self, number: int) -> LeaseRecord | None:
        """Return a lease's note, None when its job ended so long ago that the next one has removed it."""
        name = _name(number)
        try:
            return msgspec.json.decode(self._store.get(name), type=LeaseRecord)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise BusyError(
                f"{name}: expected a job's lease: {error}: remove the file when no job runs"
            ) from error

    def _busy(self, number: int) -> BusyError:
        note = self._read(number)
        if note is None:
            return BusyError(
                "expected no other job on this store, found one that has just begun; start again later"
            )
        if note.until == ENDED:
            return BusyError(
                f"expected no other job on this store, found that `{note.job}` of {note.owner} took over and ended "
                f"while this one slept or waited for the store: start again"
            )
        return BusyError(
            f"expected no other job on this store, found `{note.job}` of {note.owner}, begun {_date(note.since)}, "
            f"which holds it until {_date(note.until)} and longer while it works: start again when it has ended "
            f"or, if it died, after that time"
        )


@contextmanager
def only_job(
    store: ObjectStore, clock: Clock, job: str, owner: str | None = None
) -> Iterator[Lease]:
    """Hold the store for one job; `owner` is this process if not given. Raise `BusyError` when another holds it."""
    lease = Lease(store, clock, job, owner or f"{socket.gethostname()}, process {os.getpid()}")
    lease.take()
    try:
        yield lease
    finally:
        lease.release()


def _name(number: int) -> str:
    return f"{FOLDER}/{number:012d}"


def _date(wall_ms: int) -> str:
    return datetime.fromtimestamp(wall_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
