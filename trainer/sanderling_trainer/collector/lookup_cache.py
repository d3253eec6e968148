"""Whether the store has a file, cached for a few seconds: how stateless servers learn of tokens and tombstones."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from sanderling.runtime.clock import Clock
from sanderling_trainer.collector.rate_limit import MAX_REMEMBERED, trim
from sanderling_trainer.event_log.object_store import ObjectStore
from sanderling_trainer.event_log.tombstones import MAX_AGE_S


class LookupCache:
    """Asks the store at most once in `MAX_AGE_S` for each name, in so many threads of its own."""

    def __init__(self, store: ObjectStore, clock: Clock, threads: int) -> None:
        self._store = store
        self._clock = clock
        self._threads = ThreadPoolExecutor(threads, "sanderling-known")
        self._answers: dict[str, tuple[int, bool]] = {}

    def had(self, name: str) -> bool:
        """Say whether the store had the file at the last lookup, however long ago."""
        return self._answers.get(name, (0, False))[1]

    async def has(self, name: str) -> bool:
        """Say whether the store has the file, or had it a few seconds ago; raise `OSError` when the store fails."""
        now = self._clock.mono_ms()
        asked_at, answer = self._answers.get(name, (None, False))
        if asked_at is not None and now - asked_at < MAX_AGE_S * 1000:
            return answer

        answer = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._store.has, name
        )
        # Put the name at the end, so that `trim` removes those that were looked up longest ago.
        self._answers.pop(name, None)
        self._answers[name] = (now, answer)
        trim(self._answers, MAX_REMEMBERED)
        return answer

    def close(self) -> None:
        """Start no further lookups."""
        self._threads.shutdown(wait=False, cancel_futures=True)
