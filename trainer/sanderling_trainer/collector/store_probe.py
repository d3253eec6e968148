"""Checks whether the store is writable, at most once in a few seconds."""

from __future__ import annotations

import asyncio
import os

from sanderling.runtime.clock import Clock
from sanderling_trainer.event_log.object_store import ObjectStore

PROBE = "probe"
"""The name of the file that is written."""

PROBE_AGE_S = 5.0
"""How long a result counts, so that health checks and bad tokens cost few writes."""

PROBE_BYTES = 64 * 1024
"""Random bytes: a full disk still takes an empty file, a compressing file system one of zeros."""


class StoreProbe:
    """Writes one file, at most once in `PROBE_AGE_S`."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._probed_ms: int | None = None
        self._is_writable = False
        self._lock = asyncio.Lock()

    async def is_writable(self) -> bool:
        """Return whether the store takes a file now, or took one a few seconds ago."""
        async with self._lock:
            now_ms = self._clock.mono_ms()
            if self._probed_ms is None or now_ms - self._probed_ms >= PROBE_AGE_S * 1000:
                self._is_writable = await asyncio.to_thread(self._write)
                self._probed_ms = now_ms
            return self._is_writable

    def _write(self) -> bool:
        try:
            self._store.put(PROBE, os.urandom(PROBE_BYTES))
        except OSError:
            return False
        return True
