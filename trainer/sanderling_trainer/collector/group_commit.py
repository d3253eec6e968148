"""Commits batches: while one segment is written, the next batches gather. Refuses to know requests."""

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
from sanderling_trainer.event_log.segment_format import DEAD, SEGMENTS, new_name, pack

Waiting = list[tuple[Batch, asyncio.Future[None]]]


class GroupCommitter:
    """One thread that writes; it is a daemon, so that a store that hangs cannot keep the server from ending."""

    def __init__(self, store: ObjectStore, clock: Clock, limits: Limits, metrics: Metrics) -> None:
        self.memory = RecentIds()
        self._store, self._clock, self._limits, self._metrics = store, clock, limits, metrics
        self._waiting: Waiting = []
        self._waiting_bytes = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="sanderling-commit", daemon=True)
        self._thread.start()

    async def commit(self, batch: Batch) -> None:
        """Return when the batch is durable; raise `OSError` when it is not, `RefusalError` when too much waits."""
        size = batch.size()
        if size == 0:
            return
        if self._waiting_bytes + size > self._limits.waiting_bytes:
            raise RefusalError(503, "too many events wait to be stored", self._limits.retry_after_s)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._book(size)
        try:
            with self._changed:
                self._waiting.append((batch, done))
                self._changed.notify()
            await done
        finally:
            self._book(-size)
        self.memory.add(batch.bodies)

    def close(self, patience_s: float) -> bool:
        """Commit what waits; return whether that came to an end in time."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _book(self, size: int) -> None:
        self._waiting_bytes += size
        self._metrics.waiting_bytes.set(self._waiting_bytes)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                group, self._waiting = self._waiting, []
            if not group:
                return
            self._commit_group(group)

    def _commit_group(self, group: Waiting) -> None:
        error: Exception | None = None
        try:
            with self._metrics.commit_seconds.time():
                self._write([batch for batch, _ in group])
        except (
            Exception
        ) as trouble:  # every waiting request must be answered, whatever the store did
            self._metrics.failed_commits.inc()
            error = trouble
        with contextlib.suppress(
            RuntimeError
        ):  # the loop is closed: nobody waits for an answer any more
            group[0][1].get_loop().call_soon_threadsafe(_resolve, group, error)

    def _write(self, batches: list[Batch]) -> None:
        dead = [row for batch in batches for row in batch.dead]
        rows = [row for batch in batches for row in batch.lines]
        if dead:
            self._store.put(new_name(DEAD, self._clock), pack(dead))
        if rows:
            self._store.put(new_name(SEGMENTS, self._clock), pack(rows))


def _resolve(group: Waiting, error: Exception | None) -> None:
    for _, done in group:
        if done.cancelled():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
