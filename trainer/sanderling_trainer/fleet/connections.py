"""Connections that ask for nothing: how many, for how long, and how much each may say. Refuses to know what is asked.

At most half of the files that the process may open are theirs; the other half is for requests and for the store.

uvicorn ends a connection that is silent after an answer, but waits for ever for the first request, and for the rest of
one whose head has begun, or for a client to read; its `limit_concurrency` counts silent connections and then refuses
all others. It puts no limit on what lies around bodies: heads, the ends of chunked ones, requests before their turn.
"""

from __future__ import annotations

import asyncio
import resource

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sanderling_trainer.fleet.limits import Limits

HEADER_BYTES = 128  # what Python adds to each header, and a little more
PIPELINED = 16
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Waiting:
    """The connections on which it is the client's turn, in heads and in reading; those that wait longest come first."""

    def __init__(self, most: int, patience_s: float) -> None:
        self._most, self._patience_s = most, patience_s
        self._timers: dict[WatchedProtocol, asyncio.TimerHandle] = {}

    def add(self, connection: WatchedProtocol) -> None:
        """End the connection if its client does nothing in time; when there are too many, end the oldest at once."""
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
    """uvicorn's own protocol, told apart by whether a request is under way, and with a bound on heads and trailers."""

    waiting: Waiting
    head_bytes: int
    _unused = 0  # bytes since the last whole head or piece of a body
    _advanced = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head."""
        super().connection_made(transport)
        self.waiting.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self.waiting.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take no more at once than a head may have, and end who says more without coming to a body or an end."""
        for start in range(0, len(data), self.head_bytes):
            part = data[start : start + self.head_bytes]
            self._advanced = False
            super().data_received(part)
            self._unused += 0 if self._advanced else len(part)
            if self.transport.is_closing():
                return
            if self._unused > self.head_bytes or len(self.pipeline) > PIPELINED:
                self._refuse()
                return

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count what it takes beside its bytes; those of trailers come here too."""
        self._unused += HEADER_BYTES
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """A request is under way: its body has its own limit."""
        self._advance()
        if not self.flow.write_paused:
            self.waiting.remove(self)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Leave the counting to who reads it."""
        self._advance()
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Wait for the next head, unless it is there already."""
        another = bool(self.pipeline)
        super().on_response_complete()
        if not another and not self.transport.is_closing():
            self.waiting.add(self)

    def pause_writing(self) -> None:
        """Wait for the client to read what was answered."""
        super().pause_writing()
        self.waiting.add(self)

    def resume_writing(self) -> None:
        """Go on with the request that is under way, if there is one."""
        super().resume_writing()
        if not self.cycle.response_complete:
            self.waiting.remove(self)

    def _advance(self) -> None:
        self._unused, self._advanced = 0, True

    def _refuse(self) -> None:
        """Say why where no other answer could be meant, and end the connection."""
        if self.cycle is None:
            self.transport.write(TOO_LARGE)
            self.transport.close()
        else:
            self.transport.abort()


def protocol(limits: Limits) -> type[WatchedProtocol]:
    """Return the protocol of one server."""
    most = min(limits.connections, _files(2 * limits.connections) // 2)
    return type(
        "Protocol", (WatchedProtocol,), {"waiting": Waiting(most, limits.head_s), "head_bytes": limits.head_bytes}
    )


def _files(wanted: int) -> int:
    """Let this process open so many files, as far as it may; return how many it may open now."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    if now != resource.RLIM_INFINITY and now < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, most))
    return max(now, allowed)
