"""The one thread that uses the outbox's file, or the callers in turn where there is no thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Any, TypeVar

from sanderling.errors import StorageError
from sanderling.outbox.event_store import EventStore
from sanderling.outbox.shedding import make_room
from sanderling.outbox.write_queue import CLOSED, WriteQueue

GATHER_S = 0.02
"""How long requests without a waiting caller are gathered: one sync then serves a burst."""

FIRST_RETRY_S = 0.05
"""The pause after a failed write, which doubles with each failure."""

MAX_RETRY_S = 2.0
"""The longest pause: storage that recovers is used again within seconds."""

CALL_TIMEOUT_S = 30.0
"""How long a call waits: longer than rewriting a file of the default size on a slow disk."""

T = TypeVar("T")


class FileThread:
    """Writes what is queued, and runs calls on the file; thread-safe.

    With `threaded` a thread of its own does both, else the caller of `work`, `call` and `close`.
    """

    def __init__(self, store: EventStore, queue: WriteQueue, threaded: bool) -> None:
        self.failed_commits = 0
        self.fault = ""  # why the last write failed; empty after one that did not
        self._store = store
        self._queue = queue
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._retry_s = 0.0
        self._file_lock = Lock()  # held by the caller that uses the file where there is no thread
        self._thread: Thread | None = None
        if threaded:
            self._thread = Thread(target=self._run, name="sanderling-outbox", daemon=True)
            self._thread.start()

    @property
    def is_threaded(self) -> bool:
        """Whether a thread of its own writes."""
        return self._thread is not None

    def work(self) -> None:
        """Write what is queued, in the caller's thread; what fails stays queued.

        A no-op where there is a thread.
        """
        if self._thread is None:
            with self._file_lock:
                self._write_queue()

    def call(self, action: Callable[[], T]) -> T:
        """Return what `action` on the file returns; any failure is a `StorageError`."""
        answer: Future[T] = Future()
        with self._queue.changed:
            if self._queue.is_closed:
                raise StorageError(f"no answer: {CLOSED}")
            if self._thread is not None:
                self._calls.append((action, answer))
                self._queue.changed.notify_all()
        if self._thread is None:
            with self._file_lock:
                _run_call(action, answer)
        try:
            return answer.result(CALL_TIMEOUT_S)
        except TimeoutError:
            raise StorageError(
                f"the outbox did not answer after {CALL_TIMEOUT_S:g} s: the disk is slow or failing"
            ) from None

    def close(self, timeout_s: float) -> None:
        """Write what is queued, within the time, and close the file."""
        self._queue.close()
        if self._thread is not None:
            self._thread.join(timeout_s)
        else:
            with self._file_lock:
                self._finish()

    def _run(self) -> None:
        while True:
            with self._queue.changed:
                self._wait_for_work()
                calls = self._calls
                self._calls = deque()
                is_last = self._queue.is_closed
            for action, answer in calls:
                _run_call(action, answer)
            if is_last:
                break
            self._write_group()
        self._finish()

    def _wait_for_work(self) -> None:
        """Wait for a call, the end, or something to write: a reward at once, all else gathered."""
        changed = self._queue.changed

        def has_call() -> bool:
            return bool(self._calls) or self._queue.is_closed

        if self._retry_s:
            changed.wait_for(has_call, self._retry_s)
            return
        changed.wait_for(lambda: has_call() or bool(self._queue))
        changed.wait_for(lambda: has_call() or self._queue.is_urgent(), GATHER_S)

    def _finish(self) -> None:
        self._write_queue()
        self._store.close()
        self._queue.drop_rest()

    def _write_queue(self) -> None:
        while self._queue and self._write_group():
            pass

    def _write_group(self) -> bool:
        """Commit the head of the queue; return False when that failed and is to be tried again."""
        group = self._queue.group()
        if not group:
            return True
        durable = self._queue.is_closed or any(each.done is not None for each in group)
        try:
            has_room = self._store.used_bytes() <= self._store.limit or make_room(self._store)
            refused = self._store.write(group, durable) if has_room else None
        except Exception as error:
            # Whatever it was, the app continues and the group stays queued; the failure is counted.
            # Some of it may be stored all the same: the events' ids make the retry idempotent.
            self.failed_commits += 1
            self.fault = str(error) or type(error).__name__
            self._retry_s = min(MAX_RETRY_S, 2 * self._retry_s or FIRST_RETRY_S)
            return False
        self._retry_s = 0.0
        self.fault = ""
        self._queue.settle(group, refused)
        return True


def _run_call(action: Callable[[], Any], answer: Future[Any]) -> None:
    try:
        answer.set_result(action())
    except Exception as error:  # the caller waits in another thread and must hear of any failure
        answer.set_exception(StorageError(f"the outbox's file: {error}"))
