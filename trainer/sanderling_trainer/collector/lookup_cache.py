"""Caches for a few seconds whether files exist, so that collectors need no shared state."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from sanderling.runtime.clock import Clock
from sanderling_trainer.collector.rate_limit import MAX_REMEMBERED, evict_oldest
from sanderling_trainer.event_log.object_store import ObjectStore
from sanderling_trainer.event_log.tombstones import LOOKUP_CACHE_S


class LookupCache:
    """Looks up each name at most once in `LOOKUP_CACHE_S`, in a pool of `threads`."""

    def __init__(self, store: ObjectStore, clock: Clock, threads: int) -> None:
        self._store = store
        self._clock = clock
        self._threads = ThreadPoolExecutor(threads, "sanderling-lookup")
        self._lookups: dict[str, tuple[int, bool]] = {}

    def existed(self, name: str) -> bool:
        """Return whether the file existed at the last lookup, however long ago."""
        return self._lookups.get(name, (0, False))[1]

    async def exists(self, name: str) -> bool:
        """Return whether a file exists, as of seconds ago; raise `OSError` if the store fails."""
        now_ms = self._clock.mono_ms()
        if name in self._lookups:
            looked_up_ms, exists = self._lookups[name]
            if now_ms - looked_up_ms < LOOKUP_CACHE_S * 1000:
                return exists

        loop = asyncio.get_running_loop()
        exists = await loop.run_in_executor(self._threads, self._store.has, name)
        # The name goes to the end, so that `evict_oldest` removes the lookups of longest ago.
        self._lookups.pop(name, None)
        self._lookups[name] = (now_ms, exists)
        evict_oldest(self._lookups, MAX_REMEMBERED)
        return exists

    def close(self) -> None:
        """Start no further lookups."""
        self._threads.shutdown(wait=False, cancel_futures=True)
