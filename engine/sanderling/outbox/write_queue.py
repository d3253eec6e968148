"""The bounded queue of what is still to be written, and the groups in which it is written."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence, Set
from itertools import islice
from threading import Condition

from sanderling.errors import StorageError
from sanderling.events.schema import ROOM_FOR_SLOT
from sanderling.outbox.event_store import EventStore
from sanderling.outbox.records import QueuedEvent, WriteRequest

MAX_QUEUED = 10_000
"""The bound on queued events, and on queued requests."""

MAX_GROUP = 256
"""The bound on requests of a group."""

BYTES_PER_REQUEST = 32 * 1024
"""Bytes of the limit for each request of a group: a small outbox is written in small groups."""

MAX_GROUP_SHARE = 1 / 16
"""The share of the limit that the events of a group may take: the file may exceed its limit by one
group, because room is checked before each."""

EVENT_BYTES = 1000
"""Bytes of an event in the file, about, without the slots of a slate."""

CLOSED = "the outbox is closed"
FULL = "the outbox is full"
QUEUE_FULL = "the queue is full because the disk does not keep up"


class WriteQueue:
    """Requests in their order, and the states that they hold. Thread-safe.

    What does not fit is dropped: counted as lost, with the gaps that it leaves. `changed` is the
    condition under which everything here is read and changed; it wakes the thread that writes.
    """

    def __init__(self, store: EventStore) -> None:
        self.changed = Condition()
        self.is_closed = False
        self.n_events = 0
        self.n_stored = 0
        self._store = store
        self._requests: deque[WriteRequest] = deque()
        self._states: dict[str, bytes] = {}
        self._max_group = max(1, min(MAX_GROUP, store.limit // BYTES_PER_REQUEST))

    def __bool__(self) -> bool:
        return bool(self._requests)

    def has_room(self, n_events: int = 1) -> bool:
        """Return whether `n_events` more may be queued now."""
        return (
            not self.is_closed
            and self.n_events + n_events <= MAX_QUEUED
            and len(self._requests) < MAX_QUEUED
        )

    def put(self, request: WriteRequest) -> None:
        """Queue a request, or drop it."""
        with self.changed:
            if self.has_room(len(request.events)):
                self._append(request)
            else:
                reason = "closed" if self.is_closed else "queue_full"
                self._store.drop(reason, request.events)

    def submit(self, request: WriteRequest) -> None:
        """Queue a request whose caller waits for it; raise `StorageError` where it does not fit."""
        with self.changed:
            # Without a bound on requests: a reward is not refused for states that wait.
            if self.is_closed or self.n_events + len(request.events) > MAX_QUEUED:
                # The caller gets the error, so this is no silent loss. But the state in memory has
                # moved already, and training will miss the step.
                self._store.note_gaps(request.events)
                raise StorageError(f"not stored: {CLOSED if self.is_closed else QUEUE_FULL}")
            self._append(request)

    def state(self, key: str) -> bytes | None:
        """Return the last queued state under a key."""
        with self.changed:
            return self._states.get(key)

    def is_urgent(self) -> bool:
        """Return whether a caller waits for a request. Called with `changed` held."""
        return any(request.done is not None for request in self._requests)

    def group(self) -> list[WriteRequest]:
        """Return the requests to write next.

        They take about `MAX_GROUP_SHARE` of the limit at most, unless the first takes more.
        """
        group: list[WriteRequest] = []
        weight = 0
        with self.changed:
            for request in islice(self._requests, self._max_group):
                weight += sum(map(_weight, request.events))
                if group and weight > MAX_GROUP_SHARE * self._store.limit:
                    break
                group.append(request)
        return group

    def settle(self, group: Sequence[WriteRequest], refused: Sequence[str] | None) -> None:
        """Take a finished group off the queue.

        `refused` says for each request why it was not stored, or ""; it is None when there was no
        room for any of them.
        """
        with self.changed:
            for request, reason in zip(group, refused or [FULL] * len(group), strict=True):
                self._requests.popleft()
                self._finish(request, reason)
                if refused is None and request.done is None:
                    self._store.drop("full", request.events)
                elif refused is None:
                    self._store.note_gaps(request.events)
                elif not reason:
                    self.n_stored += len(request.events)

    def forget(self, pseudonyms: Set[str], keys: Set[str]) -> None:
        """Drop the requests that concern these users, and their gaps."""
        with self.changed:
            concerned = [each for each in self._requests if each.concerns(pseudonyms, keys)]
            self._requests = deque(
                each for each in self._requests if not each.concerns(pseudonyms, keys)
            )
            for request in concerned:
                self._finish(request, "the user was forgotten")
                self._store.drop("forgotten", request.events)
            self._store.gaps.discard(pseudonyms)

    def close(self) -> None:
        """Take no more requests."""
        with self.changed:
            self.is_closed = True
            self.changed.notify_all()

    def drop_rest(self) -> None:
        """Drop all that is left after the file has been closed."""
        with self.changed:
            while self._requests:
                request = self._requests.popleft()
                self._store.drop("closed", request.events)
                _answer(request, CLOSED)

    def _append(self, request: WriteRequest) -> None:
        self._states.update(request.states)
        self._requests.append(request)
        self.n_events += len(request.events)
        if request.done is not None or len(self._requests) == 1:
            self.changed.notify_all()

    def _finish(self, request: WriteRequest, reason: str) -> None:
        """Count a request out and let go of its states, unless later ones have replaced them."""
        self.n_events -= len(request.events)
        for key, value in request.states.items():
            if self._states.get(key) is value:
                del self._states[key]
        _answer(request, reason)


def _answer(request: WriteRequest, reason: str) -> None:
    if request.done is not None and reason:
        request.done.set_exception(StorageError(f"not stored: {reason}"))
    elif request.done is not None:
        request.done.set_result(None)


def _weight(event: QueuedEvent) -> int:
    """Return about how many bytes an event takes."""
    return EVENT_BYTES + ROOM_FOR_SLOT * len(getattr(event, "slate", ()))
