"""Group commit: batches that arrive while a segment is written share the next."""

from __future__ import annotations

import asyncio
import contextlib
import threading

from sanderling.runtime.clock import Clock
from sanderling_trainer.collector.limits import Limits, RefusalError
from sanderling_trainer.collector.metrics import Metrics
from sanderling_trainer.collector.recent_ids import RecentIds
from sanderling_trainer.collector.validation import Batch
from sanderling_trainer.event_log.object_store import ObjectStore
from sanderling_trainer.event_log.segment_format import DEAD, SEGMENTS, new_file_name, pack

Group = list[tuple[Batch, asyncio.Future[None]]]


class GroupCommitter:
    """Writes the batches of all requests in one thread."""

    def __init__(self, store: ObjectStore, clock: Clock, limits: Limits, metrics: Metrics) -> None:
        self.recent_ids = RecentIds()
        self._store = store
        self._clock = clock
        self._limits = limits
        self._metrics = metrics
        self._pending: Group = []
        # With the bytes of the group that is being written; used by the event loop only.
        self._pending_bytes = 0
        self._closing = False
        self._changed = threading.Condition()
        # A daemon, so that a store that hangs cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="sanderling-commit", daemon=True)
        self._thread.start()

    async def commit(self, batch: Batch) -> None:
        """Return when the batch is durable.

        Raises `OSError` when it could not be stored, `RefusalError` when too much waits already.
        """
        size = batch.size()
        if size == 0:
            return
        if self._pending_bytes + size > self._limits.waiting_bytes:
            raise RefusalError(503, "too many events wait to be stored", self._limits.retry_after_s)

        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._add_pending_bytes(size)
        try:
            with self._changed:
                self._pending.append((batch, durable))
                self._changed.notify()
            await durable
        finally:
            self._add_pending_bytes(-size)
        self.recent_ids.add(batch.checksums)

    def close(self, timeout_s: float) -> bool:
        """Commit what is pending; return whether that ended in time."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _add_pending_bytes(self, size: int) -> None:
        self._pending_bytes += size
        self._metrics.waiting_bytes.set(self._pending_bytes)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closing)
                group = self._pending
                self._pending = []
            if not group:
                return
            self._commit_group(group)

    def _commit_group(self, group: Group) -> None:
        error: Exception | None = None
        try:
            with self._metrics.commit_seconds.time():
                self._write([batch for batch, _ in group])
        except Exception as caught:  # whatever the store raised, every request must be answered
            self._metrics.failed_commits.inc()
            error = caught

        loop = group[0][1].get_loop()
        with contextlib.suppress(RuntimeError):  # the loop is closed: no request waits any more
            loop.call_soon_threadsafe(_resolve, group, error)

    def _write(self, batches: list[Batch]) -> None:
        dead_letters = [letter for batch in batches for letter in batch.dead_letters]
        if dead_letters:
            self._store.put(new_file_name(DEAD, self._clock), pack(dead_letters))

        lines = [line for batch in batches for line in batch.lines]
        if lines:
            self._store.put(new_file_name(SEGMENTS, self._clock), pack(lines))


def _resolve(group: Group, error: Exception | None) -> None:
    for _, durable in group:
        if durable.cancelled():
            continue
        if error is None:
            durable.set_result(None)
        else:
            durable.set_exception(error)
