"""Checks bearer tokens against the store, through a cache of a few seconds."""

from __future__ import annotations

import hmac

from sanderling.runtime.clock import Clock
from sanderling_trainer.collector.limits import Limits, RefusalError
from sanderling_trainer.collector.lookup_cache import LookupCache
from sanderling_trainer.collector.store_probe import StoreProbe
from sanderling_trainer.collector.tokens import FOLDER, checked_token, token_file
from sanderling_trainer.event_log.object_store import ObjectStore


class Authenticator:
    """Checks tokens; `token` is one that all devices share, beside those that the store has.

    Raises `TokenError` for a token that no device could send.
    """

    def __init__(
        self, store: ObjectStore, token: str | None, clock: Clock, limits: Limits, probe: StoreProbe
    ) -> None:
        self._token = None if token is None else checked_token(token)
        self._limits = limits
        self._probe = probe
        self._unknown_lookups = 0
        # Unknown tokens can use half of the threads, so that guesses cannot keep known devices out.
        self._issued = LookupCache(store, clock, 2 * limits.unknown_tokens)

    async def check(self, authorization: str) -> str | None:
        """Return the hash of a valid token in the Authorization header; None for the shared one.

        Raises `RefusalError`: 401 for an invalid token, 503 when too many unknown tokens come at
        once or the store fails; `OSError` when the lookup fails.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise RefusalError(401, "expected a bearer token")
        if self._token is not None and hmac.compare_digest(token.encode(), self._token.encode()):
            return None
        name = token_file(token)
        if await self._is_issued(name):
            return name.removeprefix(f"{FOLDER}/")

        # A store whose bucket is missing has no tokens either; devices must not take that for a
        # revocation.
        if not await self._probe.is_writable():
            raise RefusalError(503, "the store fails", self._limits.retry_after_s)
        raise RefusalError(401, "expected a known bearer token")

    def close(self) -> None:
        """Start no further lookups."""
        self._issued.close()

    async def _is_issued(self, name: str) -> bool:
        if self._issued.existed(name):
            return await self._issued.exists(name)

        if self._unknown_lookups >= self._limits.unknown_tokens:
            raise RefusalError(503, "too many unknown tokens at once", self._limits.retry_after_s)
        self._unknown_lookups += 1
        try:
            return await self._issued.exists(name)
        finally:
            self._unknown_lookups -= 1
