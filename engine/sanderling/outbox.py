"""The outbox: what happened on the device waits here, durable, bounded and counted, until the collector has it.

Callers put events into a bounded queue; one thread owns the database, or where there is none, whoever calls `work`.
Refuses to know networks and policies.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import apsw

from sanderling import forgetting, forks, shed
from sanderling.boot import Boot
from sanderling.clock import Clock, Entropy
from sanderling.contract.events import ROOM_FOR_SLOT, Event
from sanderling.errors import StorageError
from sanderling.future import Future
from sanderling.identity import Identity
from sanderling.store import Job, Pending, Store, kind_of, moved_by

QUEUE_EVENTS = 10_000
GROUP_JOBS = 256
GROUP_SHARE = 32 * 1024
EVENT_BYTES = 1000
GATHER_S = 0.02
FIRST_RETRY_S = 0.05
LAST_RETRY_S = 2.0
CALL_TIMEOUT_S = 30.0
AMID = "a signal handler asked amid another call of its thread, which has to go on first"

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

    `work` writes what is queued for those who keep time themselves; with `threaded` a thread does. A process forked
    from this one must open its own outbox in another folder: there this one refuses everything.
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
        self._store = Store(Path(folder), limit_bytes, clock, entropy)
        forgetting.scrub_left(self._store)
        self._queue: deque[tuple[Job, Future[None] | None]] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._drops: Counter[tuple[str, str]] = Counter()
        self._gaps: set[str] = set()
        self._lost: Counter[str] = Counter()
        self._states: dict[str, bytes] = {}
        self._queued = self._stored = self._acknowledged = self._quarantined = self._failed_commits = 0
        self._durable_waiting = 0
        self._retry_s = 0.0
        self._most_jobs = self._group_jobs = max(1, min(GROUP_JOBS, limit_bytes // GROUP_SHARE))
        self._shut = ""
        self._renew_locks()
        self._thread: threading.Thread | None = None
        if threaded:
            self._thread = threading.Thread(target=self._run, name="sanderling-outbox", daemon=True)
            self._thread.start()
        forks.watch(self)

    def _renew_locks(self) -> None:
        self._wake = threading.Condition()
        self._turn = threading.RLock()
        self._reading = threading.RLock()  # a signal handler may call what it interrupted
        self._working = self._called_amid = False

    @property
    def identity(self) -> Identity:
        """Who this install is; another one after `begin_anew`."""
        meta = self._store.meta
        return Identity(meta.install, meta.secret)

    @property
    def boot(self) -> Boot:
        """This run under this name."""
        return self._store.boot

    @property
    def install(self) -> str:
        """The name of this install."""
        return self._store.meta.install

    def put(self, events: Sequence[Event], states: Mapping[str, bytes] = {}, install: str | None = None) -> None:
        """Queue events, and the users' new states that go with them; storage trouble is counted, never raised.

        What was made under the name of an `install` that this one is no longer is not stored.
        """
        with self._wake:
            if self._shut or self._is_full(events) or len(self._queue) >= QUEUE_EVENTS:
                self._drop("closed" if self._shut else "queue_full", events)
                return
            self._enqueue(Job(events, states, install), None)

    def put_durable(self, events: Sequence[Event], timeout_s: float = 10.0, states: Mapping[str, bytes] = {}) -> None:
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
        future: Future[None] = Future()
        with self._wake:
            if self._shut or self._is_full(events):
                self._gap(events)
                raise StorageError(f"not stored: {self._shut or 'the queue is full because the disk does not keep up'}")
            self._enqueue(Job(events, states, install), future)
        return lambda timeout_s: self._await(future, timeout_s, "the reward is not known to be on disk")

    def _await(self, future: Future[T], timeout_s: float, what: str) -> T:
        if self._thread is None:
            amid, timeout_s = not self._alone(self._write_queue), 0.0
        else:
            amid = _held(self._wake)
        if amid:
            raise StorageError(f"{what}: {AMID}")
        return _result(future, timeout_s, what)

    def work(self) -> None:
        """Write what is queued, in the caller's thread; what fails stays queued. With a thread nothing happens."""
        if self._thread is None and not self._shut:
            self._alone(self._write_queue)

    def _alone(self, action: Callable[[], None]) -> bool:
        """Run what uses the file, in the caller's thread. A signal handler that comes amid such a run is told no: what
        it queued is written behind it, and if it closed the outbox, that ends then."""
        with self._turn:
            if self._working:
                self._called_amid = True
                return False
            try:
                self._working = True
                action()
            finally:
                self._working = False
                if self._called_amid:
                    self._called_amid = False
                    self._alone(self._end if self._shut else self._write_queue)
        return True

    def _write_queue(self) -> None:
        while self._queue and self._write_group():
            pass

    def _is_full(self, events: Sequence[Event]) -> bool:
        return self._queued + len(events) > QUEUE_EVENTS

    def _enqueue(self, job: Job, future: Future[None] | None) -> None:
        events = len(job.events)
        self._states.update(job.states)
        self._queue.append((job, future))
        self._queued += events
        self._durable_waiting += future is not None
        if future is not None or len(self._queue) == 1:
            self._wake.notify_all()

    def _drop(self, reason: str, events: Sequence[Event]) -> None:
        self._drops.update((reason, kind_of(event)) for event in events)
        self._lost[reason] += len(events)
        self._gap(events)

    def _gap(self, events: Sequence[Event]) -> None:
        """Note whose states can't be rebuilt without these events, to mark it with what is written next."""
        if self._shut:
            return
        names = moved_by(event for event in events if event.install == self._store.meta.install)
        self._store.note_gaps(names)
        self._gaps = (self._gaps | names) & self._store.gaps

    def mend(self, name: str) -> bool:
        """Return whether the lab cannot rebuild the state of this pseudonym, and take it for mended from now on.

        Says no while nothing more can be queued: then it is mended some other time.
        """
        if name not in self._store.gaps:
            return False
        with self._wake:
            if self._shut or max(self._queued, len(self._queue)) >= QUEUE_EVENTS:
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
            if waiting is not None or self._shut:
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

    def oldest(self, max_events: int, max_bytes: int) -> list[Pending]:
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
            waiting, self._queue = self._queue, deque()
            concerned: list[tuple[Job, Future[None] | None]] = []
            for job, future in waiting:
                (concerned if job.concerns(names, keys) else self._queue).append((job, future))
            for job, future in concerned:
                self._leave(job, future)
                self._drop("forgotten", job.events)
            self._gaps -= names
            self._store.gaps -= names
        for _, future in concerned:
            _finish(future, "the user was forgotten")
        forgetting.forget(self._store, names, keys)

    def begin_anew(self) -> None:
        """Delete everything, and go on as another install with another secret; raise `StorageError` if that fails.

        What is queued under the old name is refused when its turn comes.
        """
        self._ask(self._begin_anew)

    def rename(self) -> None:
        """Begin anew unless something is left to be told; raise `StorageError` if that fails."""
        self._ask(self._rename)

    def _rename(self) -> None:
        with self._wake:
            if self._drops and not self._queue:
                # Losses are declared with the next job that is written, under the old name.
                self._enqueue(Job((), {}), None)
            is_told = not self._queue and self._store.meta.events == 0

        if is_told:
            self._begin_anew()

    def _begin_anew(self) -> None:
        forgetting.begin_anew(self._store)
        with self._wake:
            self._drops.clear()
            self._gaps.clear()

    def scrub_left(self) -> None:
        """Overwrite the bytes of what was deleted, where that was not possible yet; on trouble, some other time."""
        self._ask(lambda: forgetting.scrub_left(self._store))

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
            closed, self._shut = bool(self._shut), self._shut or "the outbox is closed"
            self._wake.notify_all()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(timeout_s)
        elif self._thread is None and not closed:
            self._alone(self._end)

    def _ask(self, action: Callable[[], T]) -> T:
        future: Future[T] = Future()
        amid = _held(self._wake)
        with self._wake:
            if self._shut:
                raise StorageError(f"no answer: {self._shut}")
            if self._thread is not None and not amid:
                self._calls.append((action, future))
                self._wake.notify_all()
        if self._thread is None:
            amid = not self._alone(lambda: _answer(action, future))
        if amid:
            raise StorageError(f"no answer: {AMID}")
        return _result(future, CALL_TIMEOUT_S, "the outbox did not answer")

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wait_for_work()
                calls, self._calls = self._calls, deque()
                last = bool(self._shut)
            for action, future in calls:
                _answer(action, future)
            if last:
                break
            self._write_group()
        self._end()

    def _end(self) -> None:
        self._write_queue()
        self._store.database.close()
        self._fail_waiting()

    def _wait_for_work(self) -> None:
        """Wait for a call, the end, or something to write: a reward at once, all else gathered for a moment."""
        if self._retry_s:
            self._wake.wait_for(lambda: self._calls or self._shut, self._retry_s)
            return
        self._wake.wait_for(lambda: self._calls or self._shut or self._queue)
        self._wake.wait_for(lambda: self._calls or self._shut or self._durable_waiting, GATHER_S)

    def _write_group(self) -> bool:
        """Commit the head of the queue; of what failed half is tried next, its ids make a second try harmless."""
        with self._wake:
            group = self._group()
            drops, durable = Counter(self._drops), self._durable_waiting > 0 or bool(self._shut)
            gaps = set(self._gaps)
        if not group:
            return True
        jobs = [job for job, _ in group]
        try:
            room = self._store.database.used() <= self._store.limit or shed.make_room(self._store)
            refused = self._store.write(jobs, drops, gaps, durable) if room else None
        except Exception:  # whatever it was, recommending goes on, the group stays queued, and the failure is counted
            self._failed_commits += 1
            self._group_jobs = max(1, len(group) // 2)
            self._retry_s = min(LAST_RETRY_S, 2 * self._retry_s or FIRST_RETRY_S)
            return False
        self._retry_s = 0.0
        self._group_jobs = min(self._most_jobs, 2 * self._group_jobs)
        self._settle(group, refused, drops, gaps)
        return True

    def _group(self) -> list[tuple[Job, Future[None] | None]]:
        """Return the head of the queue: no more than is to be written at once, nor than the file can overshoot by."""
        group: list[tuple[Job, Future[None] | None]] = []
        weight = 0
        for at in range(min(len(self._queue), self._group_jobs)):  # a handler may append
            job, future = self._queue[at]
            weight += sum(map(_weight, job.events))
            if group and weight > self._store.limit // 16:
                break
            group.append((job, future))
        return group

    def _settle(
        self,
        group: Sequence[tuple[Job, Future[None] | None]],
        refused: Sequence[str] | None,
        drops: Counter[tuple[str, str]],
        gaps: Set[str],
    ) -> None:
        """Take a finished group off the queue; `refused` is None when there was no room for any of it."""
        with self._wake:
            for job, future in group:
                self._queue.popleft()
                self._leave(job, future)
                if refused is None and future is None:
                    self._drop("full", job.events)
                elif refused is None:
                    self._gap(job.events)
            if refused is not None:
                self._drops -= drops
                self._gaps -= gaps
                self._stored += sum(len(job.events) for (job, _), why in zip(group, refused, strict=True) if not why)
        reasons = ["the outbox is full"] * len(group) if refused is None else refused
        for (_, future), why in zip(group, reasons, strict=True):
            _finish(future, why)

    def _leave(self, job: Job, future: Future[None] | None) -> None:
        """Count a job out that is no longer queued, and let go of its states, which are stored or never will be."""
        events = len(job.events)
        self._queued -= events
        self._durable_waiting -= future is not None
        for key, value in job.states.items():
            if self._states.get(key) is value:
                del self._states[key]

    def _fail_waiting(self) -> None:
        with self._wake:
            waiting = [future for _, future in (*self._queue, *self._calls)]
            for job, _ in self._queue:
                self._drop("closed", job.events)
            self._queue.clear()
        for future in waiting:
            _finish(future, self._shut)

    def in_child(self) -> None:
        """After a fork: the thread, the locks and the connections belong to the parent."""
        self._renew_locks()
        self._queue.clear()
        self._calls.clear()
        self._shut = "the outbox belongs to the parent process: open another after the fork"
        self._store.database.abandon()


def _weight(event: Event) -> int:
    """Return about how many bytes an event takes."""
    return EVENT_BYTES + ROOM_FOR_SLOT * len(getattr(event, "slate", ()))


def _held(condition: threading.Condition) -> bool:
    """Tell whether this thread has acquired a condition: only then may it notify, be it nobody."""
    try:
        condition.notify(0)
    except RuntimeError:
        return False
    return True


def _answer(action: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(action())
    except Exception as error:  # the caller waits in another thread and must hear of any failure
        future.set_exception(StorageError(f"the outbox's file: {error}"))


def _finish(future: Future[Any] | None, why: str) -> None:
    if future is not None and why:
        future.set_exception(StorageError(f"not stored: {why}"))
    elif future is not None:
        future.set_result(None)


def _result(future: Future[T], timeout_s: float, what: str) -> T:
    try:
        return future.result(timeout_s)
    except TimeoutError:
        raise StorageError(f"{what} after {timeout_s:g} s: the disk is slow, full or failing") from None
