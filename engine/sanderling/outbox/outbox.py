"""The outbox: events wait here, durable, bounded and counted, until the collector has them.

Callers put events into a bounded queue. One thread writes the file; without it, whoever calls `work` does.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import apsw

from sanderling.errors import StorageError
from sanderling.events.boot_clock import BootClock
from sanderling.events.schema import ROOM_FOR_SLOT, Event
from sanderling.events.semantics import kind_of, moved_by
from sanderling.outbox import erasure, shedding
from sanderling.outbox.event_store import EventStore, StoredEvent, WriteRequest
from sanderling.outbox.identity import Identity
from sanderling.runtime.clock import Clock, Entropy

QUEUE_EVENTS = 10_000
GROUP_JOBS = 256
GROUP_SHARE = 32 * 1024
EVENT_BYTES = 1000
GATHER_S = 0.02
FIRST_RETRY_S = 0.05
LAST_RETRY_S = 2.0
CALL_TIMEOUT_S = 30.0
CLOSED = "the outbox is closed"
FULL = "the outbox is full"

T = TypeVar("T")


@dataclass(frozen=True)
class Counters:
    """Events, since opening unless said otherwise. `queued` are in memory, `pending` and `bytes` in the file, now."""

    queued: int
    pending: int
    bytes: int
    stored: int
    acknowledged: int
    quarantined: int
    failed_commits: int
    lost: dict[str, int]


class Outbox:
    """The outbox of one state folder; raises `StorageError` when the folder can't be opened. Thread-safe.

    With `threaded` a thread writes what is queued; without, `work` does. Neither works in a forked child.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int = 64 * 2**20,
        clock: Clock,
        entropy: Entropy = os.urandom,
        threaded: bool = True,
    ) -> None:
        self._store = EventStore(Path(folder), limit_bytes, clock, entropy)
        erasure.scrub_left(self._store)
        self._queue: deque[WriteRequest] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._drops: Counter[tuple[str, str]] = Counter()
        self._gaps: set[str] = set()
        self._lost: Counter[str] = Counter()
        self._states: dict[str, bytes] = {}
        self._queued = self._stored = self._acknowledged = self._quarantined = (
            self._failed_commits
        ) = 0
        self._retry_s = 0.0
        self._most_jobs = self._group_jobs = max(1, min(GROUP_JOBS, limit_bytes // GROUP_SHARE))
        self._closed = False
        self._wake = threading.Condition()
        self._turn = threading.Lock()  # held by whoever uses the file where there is no thread
        self._reading = threading.Lock()
        self._thread: threading.Thread | None = None
        if threaded:
            self._thread = threading.Thread(target=self._run, name="sanderling-outbox", daemon=True)
            self._thread.start()

    @property
    def identity(self) -> Identity:
        """Who this install is; another one after `reset_identity`."""
        meta = self._store.meta
        return Identity(meta.install, meta.secret)

    @property
    def boot(self) -> BootClock:
        """This run under this name."""
        return self._store.boot

    @property
    def install(self) -> str:
        """The name of this install."""
        return self._store.meta.install

    def put(
        self, events: Sequence[Event], states: Mapping[str, bytes] = {}, install: str | None = None
    ) -> None:
        """Queue events, and the users' new states that go with them; storage trouble is counted, never raised.

        What was made under the name of an `install` that this one is no longer is not stored.
        """
        with self._wake:
            if self._closed or self._is_full(len(events)) or len(self._queue) >= QUEUE_EVENTS:
                self._drop("closed" if self._closed else "queue_full", events)
                return
            self._enqueue(WriteRequest(events, states, install))

    def put_durable(
        self, events: Sequence[Event], timeout_s: float = 10.0, states: Mapping[str, bytes] = {}
    ) -> None:
        """Return when the events, their states and all that was queued before are on disk; else raise `StorageError`.

        After an error it is not known whether they were stored: the outbox goes on trying.
        """
        self.begin(events, states)(timeout_s)

    def begin(
        self, events: Sequence[Event], states: Mapping[str, bytes] = {}, install: str | None = None
    ) -> Callable[[float], None]:
        """Queue events as `put_durable` does, and return the function that waits until they are on disk.

        Raises `StorageError` when they cannot be queued.
        """
        done: Future[None] = Future()
        with self._wake:
            if self._closed or self._is_full(len(events)):
                self._gap(events)
                why = (
                    CLOSED
                    if self._closed
                    else "the queue is full because the disk does not keep up"
                )
                raise StorageError(f"not stored: {why}")
            self._enqueue(WriteRequest(events, states, install, done))
        return lambda timeout_s: self._await(done, timeout_s)

    def _await(self, done: Future[None], timeout_s: float) -> None:
        self.work()
        _result(done, timeout_s if self._thread else 0.0, "the reward is not known to be on disk")

    def work(self) -> None:
        """Write what is queued, in the caller's thread; what fails stays queued. With a thread nothing happens."""
        if self._thread is None:
            with self._turn:
                self._write_queue()

    def _write_queue(self) -> None:
        while self._queue and self._write_group():
            pass

    def _is_full(self, events: int) -> bool:
        return self._queued + events > QUEUE_EVENTS

    def _enqueue(self, job: WriteRequest) -> None:
        self._states.update(job.states)
        self._queue.append(job)
        self._queued += len(job.events)
        if job.done is not None or len(self._queue) == 1:
            self._wake.notify_all()

    def _drop(self, reason: str, events: Sequence[Event]) -> None:
        self._drops.update((reason, kind_of(event)) for event in events)
        self._lost[reason] += len(events)
        self._gap(events)

    def _gap(self, events: Sequence[Event]) -> None:
        """Note whose states can't be rebuilt without these events, to mark it with what is written next."""
        names = moved_by(event for event in events if event.install == self._store.meta.install)
        self._store.note_gaps(names)
        self._gaps = (self._gaps | names) & self._store.gaps

    def clear_gap(self, name: str) -> bool:
        """Return whether the lab cannot rebuild the state of this pseudonym, and take it for mended from now on.

        Says no while nothing more can be queued: then it is mended some other time.
        """
        if name not in self._store.gaps:
            return False
        with self._wake:
            if self._closed or self._is_full(1) or len(self._queue) >= QUEUE_EVENTS:
                return False
            self._gaps.discard(name)
            self._store.gaps.discard(name)
        return True

    def state(self, key: str) -> bytes | None:
        """Return the last state put under a key, stored or not; None when there is none or it is damaged.

        Raises `StorageError` when it cannot be read now: there may be one.
        """
        with self._wake:
            waiting = self._states.get(key)
            if waiting is not None or self._closed:
                return waiting
        with self._reading:
            try:
                return self._store.state(key)
            except apsw.Error as error:
                raise StorageError(f"the outbox's file cannot be read now: {error}") from error

    def states(self, prefix: str) -> dict[str, bytes]:
        """Return the stored states whose keys begin with a prefix; empty on storage trouble."""
        with self._reading:
            try:
                return self._store.states(prefix)
            except apsw.Error:
                return {}

    def oldest(self, max_events: int, max_bytes: int) -> list[StoredEvent]:
        """Return stored events, oldest first, at least one if any waits; raise `StorageError` on storage trouble."""
        return self._ask(lambda: self._store.oldest(max_events, max_bytes))

    def acknowledge(self, ids: Collection[str]) -> None:
        """Delete the events that the collector has; durable when it returns, else raises `StorageError`."""
        self._acknowledged += self._ask(lambda: self._store.acknowledge(ids))

    def quarantine(self, id: str, reason: str) -> None:
        """Set one event aside, at most the last 100 are kept, and declare it lost."""
        self._quarantined += self._ask(lambda: self._store.quarantine(id, reason))

    def forget(self, names: Collection[str], keys: Collection[str]) -> None:
        """Delete all that is queued or stored of these pseudonyms, and the states under these keys.

        Raises `StorageError` if that fails.
        """
        self._ask(lambda: self._forget(frozenset(names), frozenset(keys)))

    def _forget(self, names: Set[str], keys: Set[str]) -> None:
        with self._wake:
            concerned = [job for job in self._queue if job.concerns(names, keys)]
            self._queue = deque(job for job in self._queue if not job.concerns(names, keys))
            for job in concerned:
                self._leave(job, "the user was forgotten")
                self._drop("forgotten", job.events)
            self._gaps -= names
            self._store.gaps -= names
        erasure.forget(self._store, names, keys)

    def reset_identity(self) -> None:
        """Delete everything, and go on as another install with another secret; raise `StorageError` if that fails.

        What is queued under the old name is refused when its turn comes.
        """
        self._ask(self._reset_identity)

    def rename(self) -> None:
        """Begin anew unless something is left to be told; raise `StorageError` if that fails."""
        self._ask(self._rename)

    def _rename(self) -> None:
        with self._wake:
            if self._drops and not self._queue:
                # Losses are declared with the next job that is written, under the old name.
                self._enqueue(WriteRequest((), {}))
            is_told = not self._queue and self._store.meta.events == 0

        if is_told:
            self._reset_identity()

    def _reset_identity(self) -> None:
        erasure.reset_identity(self._store)
        with self._wake:
            self._drops.clear()
            self._gaps.clear()

    def scrub_left(self) -> None:
        """Overwrite the bytes of what was deleted, where that was not possible yet; on trouble, some other time."""
        self._ask(lambda: erasure.scrub_left(self._store))

    def counters(self) -> Counters:
        """Return what is waiting and what became of the rest."""
        with self._wake:
            meta = self._store.meta
            return Counters(
                queued=self._queued,
                pending=meta.events,
                bytes=meta.bytes,
                stored=self._stored,
                acknowledged=self._acknowledged,
                quarantined=self._quarantined,
                failed_commits=self._failed_commits,
                lost=dict(self._lost + self._store.lost),
            )

    def close(self, timeout_s: float = 2.0) -> None:
        """Store what is queued and let the folder go; what could not be stored within the time is lost."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
        else:
            with self._turn:
                self._end()

    def _ask(self, action: Callable[[], T]) -> T:
        """Return what `action` on the file gives: the thread runs it, or the caller where there is none."""
        answer: Future[T] = Future()
        with self._wake:
            if self._closed:
                raise StorageError(f"no answer: {CLOSED}")
            if self._thread is not None:
                self._calls.append((action, answer))
                self._wake.notify_all()
        if self._thread is None:
            with self._turn:
                _answer(action, answer)
        return _result(answer, CALL_TIMEOUT_S, "the outbox did not answer")

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wait_for_work()
                calls, self._calls = self._calls, deque()
                last = self._closed
            for action, answer in calls:
                _answer(action, answer)
            if last:
                break
            self._write_group()
        self._end()

    def _end(self) -> None:
        """Write what can be written, close the file, and count the rest as lost."""
        self._write_queue()
        self._store.database.close()
        with self._wake:
            for job in self._queue:
                self._drop("closed", job.events)
                _finish(job, CLOSED)
            self._queue.clear()

    def _wait_for_work(self) -> None:
        """Wait for a call, the end, or something to write: a reward at once, all else gathered for a moment."""
        if self._retry_s:
            self._wake.wait_for(lambda: self._calls or self._closed, self._retry_s)
            return
        self._wake.wait_for(lambda: self._calls or self._closed or self._queue)
        self._wake.wait_for(
            lambda: self._calls or self._closed or any(map(_is_awaited, self._queue)), GATHER_S
        )

    def _write_group(self) -> bool:
        """Commit the head of the queue; of what failed half is tried next, its ids make a second try harmless."""
        with self._wake:
            group = self._group()
            drops = Counter(self._drops)
            gaps = set(self._gaps)
            durable = self._closed or any(map(_is_awaited, group))
        if not group:
            return True
        try:
            room = self._store.database.used() <= self._store.limit or shedding.make_room(
                self._store
            )
            refused = self._store.write(group, drops, gaps, durable) if room else None
        except Exception:  # whatever it was, recommending goes on, the group stays queued, and the failure is counted
            self._failed_commits += 1
            self._group_jobs = max(1, len(group) // 2)
            self._retry_s = min(LAST_RETRY_S, 2 * self._retry_s or FIRST_RETRY_S)
            return False
        self._retry_s = 0.0
        self._group_jobs = min(self._most_jobs, 2 * self._group_jobs)
        self._settle(group, refused, drops, gaps)
        return True

    def _group(self) -> list[WriteRequest]:
        """Return the head of the queue: no more than is to be written at once, nor than the file can overshoot by."""
        group: list[WriteRequest] = []
        weight = 0
        for job in islice(self._queue, self._group_jobs):
            weight += sum(map(_weight, job.events))
            if group and weight > self._store.limit // 16:
                break
            group.append(job)
        return group

    def _settle(
        self,
        group: Sequence[WriteRequest],
        refused: Sequence[str] | None,
        drops: Counter[tuple[str, str]],
        gaps: Set[str],
    ) -> None:
        """Take a finished group off the queue; `refused` is None when there was no room for any of it."""
        with self._wake:
            for job, why in zip(group, refused or [FULL] * len(group), strict=True):
                self._queue.popleft()
                self._leave(job, why)
                if refused is None and job.done is None:
                    self._drop("full", job.events)
                elif refused is None:
                    self._gap(job.events)
                elif not why:
                    self._stored += len(job.events)
            if refused is not None:
                self._drops -= drops
                self._gaps -= gaps

    def _leave(self, job: WriteRequest, why: str) -> None:
        """Count a job out, stored unless `why` says why not, and let go of its states."""
        self._queued -= len(job.events)
        for key, value in job.states.items():
            if self._states.get(key) is value:
                del self._states[key]
        _finish(job, why)


def _is_awaited(job: WriteRequest) -> bool:
    return job.done is not None


def _weight(event: Event) -> int:
    """Return about how many bytes an event takes."""
    return EVENT_BYTES + ROOM_FOR_SLOT * len(getattr(event, "slate", ()))


def _answer(action: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(action())
    except Exception as error:  # the caller waits in another thread and must hear of any failure
        future.set_exception(StorageError(f"the outbox's file: {error}"))


def _finish(job: WriteRequest, why: str) -> None:
    if job.done is not None and why:
        job.done.set_exception(StorageError(f"not stored: {why}"))
    elif job.done is not None:
        job.done.set_result(None)


def _result(future: Future[T], timeout_s: float, what: str) -> T:
    try:
        return future.result(timeout_s)
    except TimeoutError:
        raise StorageError(
            f"{what} after {timeout_s:g} s: the disk is slow, full or failing"
        ) from None
