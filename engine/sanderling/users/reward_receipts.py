"""Waits until rewards are on disk, for so long as the app allows, and remembers those that were not
in time."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import suppress
from threading import Lock

from sanderling.outbox.outbox import Outbox
from sanderling.runtime.clock import Entropy
from sanderling.runtime.lru_cache import LruCache
from sanderling.slate import Receipt

REMEMBERED_RECEIPTS = 10_000
"""Rewards whose end is remembered, of those that were pending: as many as the queue may hold."""


class RewardReceipts:
    """The receipts of one engine. Thread-safe."""

    def __init__(self, outbox: Outbox | None, entropy: Entropy) -> None:
        self._outbox = outbox
        self._entropy = entropy
        self._pending: LruCache[str, Future[None]] = LruCache(REMEMBERED_RECEIPTS)
        self._lock = Lock()

    def wait(self, done: Future[None], timeout_s: float) -> Receipt:
        """Return the receipt of a submitted reward, at the latest after `timeout_s` seconds.

        Without a thread of the outbox it writes first, and takes as long as the disk does.
        """
        if self._is_threaded:
            wait_for([done], timeout_s)
        else:
            self._write()
        return self._receipt(done, timeout_s)

    async def wait_async(self, done: Future[None], timeout_s: float) -> Receipt:
        """Do what `wait` does, without blocking the event loop."""
        import asyncio

        if not self._is_threaded:
            await asyncio.to_thread(self._write)
            return self._receipt(done, timeout_s)

        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        # Not `asyncio.wrap_future`: when its task is cancelled it cancels the write, too.
        def wake(_: Future[None]) -> None:
            with suppress(RuntimeError):  # the loop has been closed since
                loop.call_soon_threadsafe(ended.set)

        done.add_done_callback(wake)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await ended.wait()
        return self._receipt(done, timeout_s)

    def get(self, id: str) -> Receipt:
        """Return how a reward ended that was pending; raise `KeyError` for any other id."""
        with self._lock:
            done = self._pending.peek(id)
        if done is None:
            raise KeyError(id)
        if done.done():
            return _ended(done)
        return Receipt(False, f"not known to be on disk yet: {self._why_pending()}", True, id)

    def _receipt(self, done: Future[None], waited_s: float) -> Receipt:
        if done.done():
            return _ended(done)
        id = self._entropy(16).hex()
        with self._lock:
            self._pending.put(id, done)
        reason = (
            f"not known to be on disk after {waited_s:g} s: {self._why_pending()};"
            " it stays queued, and `engine.receipt(id)` tells how that ends"
        )
        return Receipt(False, reason, True, id)

    @property
    def _is_threaded(self) -> bool:
        return self._outbox is not None and self._outbox.is_threaded

    def _write(self) -> None:
        if self._outbox is not None:
            self._outbox.work()

    def _why_pending(self) -> str:
        return self._outbox.why_pending() if self._outbox else ""


def _ended(done: Future[None]) -> Receipt:
    error = done.exception()
    return Receipt(True) if error is None else Receipt(False, str(error))
