"""The outbox: events wait here, durable, bounded and counted, until the collector has them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import apsw

from sanderling.errors import StorageError
from sanderling.events.boot_clock import BootClock
from sanderling.outbox import erasure
from sanderling.outbox.event_store import EventStore
from sanderling.outbox.file_thread import FileThread
from sanderling.outbox.identity import Identity
from sanderling.outbox.records import QueuedEvent, StoredEvent, WriteRequest
from sanderling.outbox.write_queue import WriteQueue
from sanderling.runtime.clock import Clock, Entropy

MAX_BATCH_SHARE = 1 / 16
"""The share of the limit that a batch should take: what was sent once is never shed, and a batch
that is tried for weeks must leave room for other events."""


@dataclass(frozen=True)
class Counters:
    """What is in the outbox, and what became of events since it was opened."""

    queued: int
    """Events that are in memory now and not yet in the file."""

    pending: int
    """Events that are in the file now."""

    stored: int
    """Events that have been written to the file."""

    acknowledged: int
    """Events that were deleted because the collector has them."""

    failed_commits: int
    """How often a write failed; its events stayed queued."""

    lost: dict[str, int]
    """Events that were lost, by reason."""


class Outbox:
    """The outbox of one state folder; raises `StorageError` when it cannot be opened. Thread-safe.

    With `threaded` a thread writes what is queued; without, `work` does. Neither works in a forked
    child.
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
        erasure.scrub_pending(self._store)
        self._queue = WriteQueue(self._store)
        self._file = FileThread(self._store, self._queue, threaded)
        self._acknowledged = 0

    @property
    def identity(self) -> Identity:
        """The identity of this install; another one after `reset_identity`."""
        header = self._store.header
        return Identity(header.install, header.secret)

    @property
    def install(self) -> str:
        """The id of this install."""
        return self._store.header.install

    @property
    def max_batch_bytes(self) -> int:
        """The bytes that a batch should have at most."""
        return int(MAX_BATCH_SHARE * self._store.limit)

    @property
    def boot(self) -> BootClock:
        """The boot id and clocks of this run under the current identity."""
        return self._store.boot

    def put(
        self,
        events: Sequence[QueuedEvent],
        states: Mapping[str, bytes] = {},
        install: str | None = None,
    ) -> None:
        """Queue events and the user states that result from them.

        Storage errors are counted, never raised. Where `install` is given and is no longer the id
        of this install when the write takes place, nothing is stored.
        """
        self._queue.put(WriteRequest(events, states, install))

    def submit(
        self,
        events: Sequence[QueuedEvent],
        states: Mapping[str, bytes] = {},
        install: str | None = None,
    ) -> Future[None]:
        """Queue events as `put` does; return what is settled when they are on disk.

        It raises `StorageError` when they were not stored, as this method does where they cannot
        even be queued. Where there is no thread, only `work` writes them.
        """
        done: Future[None] = Future()
        self._queue.submit(WriteRequest(events, states, install, done))
        return done

    def put_durable(
        self,
        events: Sequence[QueuedEvent],
        timeout_s: float = 10.0,
        states: Mapping[str, bytes] = {},
    ) -> None:
        """Return when the events, their states and all that was queued before are on disk.

        Raises `StorageError` otherwise; after a timeout the outbox still tries to write them.
        """
        done = self.submit(events, states)
        self.work()
        try:
            done.result(timeout_s if self.is_threaded else 0.0)
        except TimeoutError:
            raise StorageError(
                f"not known to be on disk after {timeout_s:g} s: {self.why_pending()}"
            ) from None

    @property
    def is_threaded(self) -> bool:
        """Whether a thread writes what is queued."""
        return self._file.is_threaded

    def why_pending(self) -> str:
        """Return why events are still queued: the last write's error, or a slow disk."""
        return self._file.fault or "the disk is slow"

    def work(self) -> None:
        """Write what is queued where there is no thread; what fails stays queued."""
        self._file.work()

    def clear_gap(self, pseudonym: str) -> bool:
        """Clear a user's gap; return whether there was one to close.

        A gap means that training cannot rebuild this user's state. After True the caller must queue
        a `StateReset`, which closes it. Returns False while the queue takes nothing; the gap then
        stays.
        """
        if pseudonym not in self._store.gaps or not self._queue.has_room():
            return False
        self._store.gaps.discard({pseudonym})
        return True

    def state(self, key: str) -> bytes | None:
        """Return the last state put under a key, stored or not.

        None when there is none, it is damaged, or the outbox is closed. Raises `StorageError` when
        it cannot be read now: there may be one.
        """
        state = self._queue.state(key)
        if state is not None or self._queue.is_closed:
            return state
        try:
            return self._store.states.get(key)
        except apsw.Error as error:
            raise StorageError(f"the outbox's file cannot be read now: {error}") from error

    def states(self, prefix: str) -> dict[str, bytes]:
        """Return the stored states whose keys start with a prefix; {} on a storage error."""
        try:
            return self._store.states.with_prefix(prefix)
        except apsw.Error:
            # Only open reward windows are read so. Without them the engine still starts, and their
            # default outcomes are lost.
            return {}

    def oldest(self, max_events: int, max_bytes: int) -> list[StoredEvent]:
        """Return stored events, oldest first, at least one if any; raises `StorageError`."""
        return self._file.call(lambda: self._store.oldest(max_events, max_bytes))

    def acknowledge(self, ids: Collection[str]) -> None:
        """Delete the events that the collector has, durably; raises `StorageError`."""
        self._acknowledged += self._file.call(lambda: self._store.acknowledge(ids))

    def reject(self, id: str, reason: str) -> None:
        """Delete an event that the collector will never store, and declare it lost.

        Raises `StorageError`.
        """
        self._file.call(lambda: self._store.reject(id, reason))

    def forget(self, pseudonyms: Collection[str], keys: Collection[str]) -> None:
        """Delete all events of these pseudonyms, and the states under these keys.

        Raises `StorageError` if that fails.
        """
        users = frozenset(pseudonyms)

        def forget() -> None:
            self._queue.forget(users, frozenset(keys))
            erasure.forget(self._store, users, keys)

        self._file.call(forget)

    def reset_identity(self) -> None:
        """Delete everything and take a new identity; raises `StorageError` if that fails.

        What is still queued under the old install id is refused when its turn comes.
        """
        self._file.call(lambda: erasure.reset_identity(self._store))

    def rotate_identity(self) -> None:
        """Take a new identity if nothing is left to send; raises `StorageError` if that fails."""
        self._file.call(self._rotate_identity)

    def _rotate_identity(self) -> None:
        if self._store.losses.undeclared() and not self._queue:
            # Losses are declared with the next request that is written, under the old identity.
            self._queue.put(WriteRequest((), {}))
        if not self._queue and self._store.header.events == 0:
            erasure.reset_identity(self._store)

    def scrub_pending(self) -> None:
        """Overwrite deleted bytes that could not be overwritten yet, if that is possible now.

        Raises `StorageError` when the outbox is closed or does not answer.
        """
        self._file.call(lambda: erasure.scrub_pending(self._store))

    def counters(self) -> Counters:
        """Return what is waiting, and what became of the rest."""
        with self._queue.changed:
            header = self._store.header
            return Counters(
                queued=self._queue.n_events,
                pending=header.events,
                stored=self._queue.n_stored,
                acknowledged=self._acknowledged,
                failed_commits=self._file.failed_commits,
                lost=self._store.losses.by_reason(),
            )

    def close(self, timeout_s: float = 2.0) -> None:
        """Store what is queued and close the file; what is not stored within the time is lost."""
        self._file.close(timeout_s)
