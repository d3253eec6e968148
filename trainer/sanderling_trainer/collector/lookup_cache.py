"""Caches for a few seconds whether files exist, so that collectors need no shared state."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from sanderling.runtime.clock import Clock
from sanderling.runtime.lru_cache import LruCache
from sanderling_trainer.collector.rate_limit import MAX_REMEMBERED
from sanderling_trainer.event_log.object_store import ObjectStore
from sanderling_trainer.event_log.tombstones import LOOKUP_CACHE_S


class LookupCache:
    """Looks up each name at most once in `LOOKUP_CACHE_S`, and creates files, in `threads`."""

    def __init__(self, store: ObjectStore, clock: Clock, threads: int) -> None:
        self._store = store
        self._clock = clock
        self._threads = ThreadPoolExecutor(threads, "sanderling-lookup")
        self._lookups: LruCache[str, tuple[int, bool]] = LruCache(MAX_REMEMBERED)

    def existed(self, name: str) -> bool:
        """Return whether the file existed at the last lookup, however long ago."""
        _, existed = self._lookups.peek(name) or (0, False)
        return existed

    async def exists(self, name: str) -> bool:
        """Return whether a file exists, as of seconds ago; raise `OSError` if the store fails."""
        now_ms = self._clock.mono_ms()
        last = self._lookups.get(name)
        if last is not None and now_ms - last[0] < LOOKUP_CACHE_S * 1000:
            return last[1]

        loop = asyncio.get_running_loop()
        exists = await loop.run_in_executor(self._threads, self._store.has, name)
        self._lookups.put(name, (now_ms, exists))
        return exists

    async def create(self, name: str) -> None:
        """Write an empty file; raise `OSError` if the store fails."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._store.put, name, b"")
        self._lookups.put(name, (self._clock.mono_ms(), True))

    def close(self) -> None:
        """Start no further lookups."""
        self._threads.shutdown(wait=False, cancel_futures=True)
