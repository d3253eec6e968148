"""Does the store take files, as of a few seconds ago? Refuses to know who asks."""

from __future__ import annotations

import asyncio
import os

from sanderling.runtime.clock import Clock
from sanderling_trainer.event_log.object_store import ObjectStore

PROBE = "probe"
PROBE_AGE_S = 5.0
PROBE_BYTES = 64 * 1024  # a full disk takes an empty file, and one that packs may take zeros


class StoreProbe:
    """Writes one file, at most once in `PROBE_AGE_S`."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._asked_at: int | None = None
        self._works = False
        self._turn = asyncio.Lock()

    async def works(self) -> bool:
        """Say whether the store took a file just now, or a few seconds ago."""
        async with self._turn:
            now = self._clock.mono_ms()
            if self._asked_at is None or now - self._asked_at >= PROBE_AGE_S * 1000:
                self._works = await asyncio.to_thread(self._put)
                self._asked_at = now
            return self._works

    def _put(self) -> bool:
        try:
            self._store.put(PROBE, os.urandom(PROBE_BYTES))
        except OSError:
            return False
        return True
