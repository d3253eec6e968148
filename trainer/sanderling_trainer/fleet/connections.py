"""Connections that ask for nothing: how many may be open, and for how long. Refuses to know what is asked.

At most half of the files that the process may open are theirs; the other half is for requests and for the store.

uvicorn ends a connection that is silent after an answer, but waits for ever for the first request, and for the rest of
one whose head has begun; its `limit_concurrency` counts silent connections and then refuses all others.
"""

from __future__ import annotations

import asyncio
import resource

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sanderling_trainer.fleet.limits import Limits


class Waiting:
    """The connections on which no request is under way, those that have waited longest first."""

    def __init__(self, most: int, patience_s: float) -> None:
        self._most, self._patience_s = most, patience_s
        self._timers: dict[WatchedProtocol, asyncio.TimerHandle] = {}

    def add(self, connection: WatchedProtocol) -> None:
        """End the connection if no whole head comes in time; when there are too many, end the oldest at once."""
        self.remove(connection)
        self._timers[connection] = connection.loop.call_later(self._patience_s, self._end, connection)
        if len(self._timers) > self._most:
            self._end(next(iter(self._timers)))

    def remove(self, connection: WatchedProtocol) -> None:
        """Leave a connection alone."""
        timer = self._timers.pop(connection, None)
        if timer is not None:
            timer.cancel()

    def _end(self, connection: WatchedProtocol) -> None:
        self.remove(connection)
        connection.transport.abort()


class WatchedProtocol(HttpToolsProtocol):
    """uvicorn's own protocol, told apart by whether a request is under way."""

    waiting: Waiting

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head."""
        super().connection_made(transport)
        self.waiting.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.waiting.remove(self)
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """A request is under way: its body has its own limit."""
        self.waiting.remove(self)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next head, unless it is there already."""
        another = bool(self.pipeline)
        super().on_response_complete()
        if not another and not self.transport.is_closing():
            self.waiting.add(self)


def protocol(limits: Limits) -> type[WatchedProtocol]:
    """Return the protocol of one server."""
    most = min(limits.connections, _files(2 * limits.connections) // 2)
    return type("Protocol", (WatchedProtocol,), {"waiting": Waiting(most, limits.head_s)})


def _files(wanted: int) -> int:
    """Let this process open so many files, as far as it may; return how many it may open now."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    if now != resource.RLIM_INFINITY and now < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    return max(now, allowed)
