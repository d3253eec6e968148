"""Whether the store has a name, as of a few seconds ago: how stateless servers learn of tokens and tombstones."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from sanderling.clock import Clock
from sanderling_trainer.data.store import Store
from sanderling_trainer.fleet.limits import MAX_REMEMBERED, trim

MAX_AGE_S = 10.0


class Known:
    """Asks the store at most once in `MAX_AGE_S` for each name, in so many threads of its own."""

    def __init__(self, store: Store, clock: Clock, threads: int) -> None:
        self._store, self._clock = store, clock
        self._threads = ThreadPoolExecutor(threads, "sanderling-known")
        self._answers: dict[str, tuple[int, bool]] = {}

    def __contains__(self, name: str) -> bool:
        """Say whether an answer is remembered, however old."""
        return name in self._answers

    async def has(self, name: str) -> bool:
        """Say whether the store has, or had a few seconds ago, a file of this name; raise `OSError` for trouble."""
        now = self._clock.mono_ms()
        asked_at, answer = self._answers.get(name, (None, False))
        if asked_at is not None and now - asked_at < MAX_AGE_S * 1000:
            return answer
        answer = await asyncio.get_running_loop().run_in_executor(self._threads, self._store.has, name)
        self._answers.pop(name, None)
        self._answers[name] = (now, answer)
        trim(self._answers, MAX_REMEMBERED)
        return answer

    def close(self) -> None:
        """Ask nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
