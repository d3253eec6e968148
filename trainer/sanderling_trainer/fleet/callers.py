"""Who may send: tokens by what the store says, however many others are tried. Refuses to know requests.

A token that was valid once is a friend's, and is asked about in threads that no stranger's lookup can fill.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sanderling.clock import Clock
from sanderling_trainer.data.store import Store
from sanderling_trainer.fleet.known import Known
from sanderling_trainer.fleet.limits import Limits, RefusalError
from sanderling_trainer.fleet.tokens import file_of

FRIENDS_AT_ONCE = 32


class Callers:
    """The tokens that came; new ones are looked up a few at a time, while some wait for their turn."""

    def __init__(self, store: Store, clock: Clock, limits: Limits) -> None:
        self._limits, self._new, self._turns = limits, 0, asyncio.Semaphore(limits.strangers)
        self._friends, self._strangers = Known(store, clock, FRIENDS_AT_ONCE), Known(store, clock, limits.strangers)

    async def may_send(self, token: str) -> bool:
        """Say whether a token is valid; raise `RefusalError` where too many new ones come, `OSError` for trouble."""
        name = file_of(token)
        if name in self._friends or await self._is_new_friend(name):
            return await self._friends.has(name)
        return False

    def close(self) -> None:
        """Ask nothing more."""
        self._friends.close()
        self._strangers.close()

    async def _is_new_friend(self, name: str) -> bool:
        if self._new >= self._limits.strangers + self._limits.waiting_strangers:
            raise self._refusal()
        self._new += 1
        try:
            async with self._turn():
                return await self._strangers.has(name)
        finally:
            self._new -= 1

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._limits.strangers_s):
                await self._turns.acquire()
        except TimeoutError:
            raise self._refusal() from None
        try:
            yield
        finally:
            self._turns.release()

    def _refusal(self) -> RefusalError:
        return RefusalError(503, "too many unknown tokens at once", self._limits.retry_after_s)
