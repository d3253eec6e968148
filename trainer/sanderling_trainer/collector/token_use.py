"""What each token uses: its requests at once, and the installs and events that it has brought.

A token is known by its hash. None stands for the token that all devices share, which has no limits
of its own.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client.core import GaugeMetricFamily

from sanderling.runtime.clock import Clock
from sanderling.runtime.lru_cache import LruCache
from sanderling_trainer.collector.limits import Limits, RefusalError
from sanderling_trainer.collector.lookup_cache import LookupCache
from sanderling_trainer.collector.metrics import NAME
from sanderling_trainer.collector.rate_limit import RateLimit
from sanderling_trainer.event_log.object_store import ObjectStore
from sanderling_trainer.event_log.token_installs import SHOWN_DIGITS, install_file

MAX_TOKENS = 10_000
"""Tokens that are remembered: those used last."""

MAX_INSTALLS = 10_000
"""Installs of one token that are counted."""

SHOWN_TOKENS = 20
"""So many tokens stand in the metrics: those with the most installs, and with the most events."""

THREADS = 8
DAY_S = 86_400


@dataclass
class _Use:
    installs: set[str] = field(default_factory=set)
    events: int = 0


class TokenUse:
    """Limits and counts what tokens bring, in one process; a Prometheus collector."""

    def __init__(self, store: ObjectStore, clock: Clock, limits: Limits) -> None:
        self._limits = limits
        self._requests: Counter[str] = Counter()
        self._uses: LruCache[str, _Use] = LruCache(MAX_TOKENS)
        self._files = LookupCache(store, clock, THREADS)
        self._new_installs = RateLimit(
            clock,
            limits.new_installs / DAY_S,
            limits.new_installs,
            f"{limits.new_installs:g} new installs a day of a device's token; revoke it if it was"
            " stolen, and give --token where all devices share one",
        )

    @contextmanager
    def request(self, token: str | None) -> Iterator[None]:
        """Count a request while it is in progress.

        Raises `RefusalError` when the token has as many as it may, so that slow bodies of one leave
        room for the others.
        """
        if token is None:
            yield
            return
        if self._requests[token] >= self._limits.token_requests:
            reason = "too many requests of this token at once"
            raise RefusalError(503, reason, self._limits.retry_after_s)
        self._requests[token] += 1
        try:
            yield
        finally:
            self._requests[token] -= 1
            if not self._requests[token]:
                del self._requests[token]

    async def admit(self, token: str | None, installs: Collection[str]) -> None:
        """Remember in the store that a token has brought these installs.

        Raises `RefusalError` when more of them are new than a token may bring in a day, and
        `OSError` when the store fails.
        """
        if token is None:
            return
        names = [install_file(token, install) for install in installs]
        known = await asyncio.gather(*map(self._is_known, names))
        new = [name for name, is_known in zip(names, known, strict=True) if not is_known]
        if new:
            self._new_installs.charge({token: len(new)})
            await asyncio.gather(*map(self._files.create, new))

    def count(self, token: str | None, installs: Collection[str], events: int) -> None:
        """Count what a token's batch has brought."""
        if token is None:
            return
        use = self._uses.get(token) or _Use()
        self._uses.put(token, use)
        use.events += events
        if len(use.installs) < MAX_INSTALLS:
            use.installs.update(installs)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the metrics of the tokens that have brought most since the process started."""
        uses = {token: (len(use.installs), use.events) for token, use in self._uses.items()}
        for column, (name, text) in enumerate(
            [
                ("token_installs", "Installs that a token has brought; those with the most."),
                ("token_events", "Events that a token has brought; those with the most."),
            ]
        ):
            family = GaugeMetricFamily(NAME + name, text, labels=["token"])
            amounts = {token: use[column] for token, use in uses.items()}
            for token in heapq.nlargest(SHOWN_TOKENS, amounts, key=amounts.__getitem__):
                family.add_metric([token[:SHOWN_DIGITS]], amounts[token])
            yield family

    def close(self) -> None:
        """Start no further lookups."""
        self._files.close()

    async def _is_known(self, name: str) -> bool:
        return self._files.existed(name) or await self._files.exists(name)
