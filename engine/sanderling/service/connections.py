"""Connections with limits on their number and on the heads of requests, which uvicorn lacks, and
with answers that are written at once."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sanderling.service.limits import Limits


def limited_connection(limits: Limits) -> type[HttpToolsProtocol]:
    """Return the class of the connections of a service."""
    return type("LimitedConnection", (_Connection,), {"limits": limits})


class _Connection(HttpToolsProtocol):
    limits: Limits
    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _answers: _WholeAnswers

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.transport = self._answers = _WholeAnswers(transport)  # type: ignore[assignment]
        if len(self.connections) > self.limits.connections:
            self._refuse(503, f"expected at most {self.limits.connections} connections")
        else:
            # Until the first request; after each one uvicorn waits for so long itself.
            self._wait(self.limits.idle_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_bytes:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes:
                self._refuse(431, f"expected a head of at most {self.limits.head_bytes} bytes")

    def on_message_begin(self) -> None:
        self._head_bytes = 1  # of which more are counted until it is complete
        self._stop_waiting()
        self._wait(self.limits.head_s)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        self._answers.flush()
        super().on_response_complete()

    def _wait(self, seconds: float) -> None:
        self._head_timer = self.loop.call_later(seconds, self._end_waiting)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_waiting(self) -> None:
        self._refuse(408, "expected a request in time")

    def _refuse(self, status: int, reason: str) -> None:
        """Answer what is no request yet, and close."""
        if self.transport.is_closing():
            return
        body = b'{"error":"connection: %b"}' % reason.encode()
        head = (
            f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nretry-after: {self.limits.retry_after_s}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


class _WholeAnswers:
    """A transport that sends the head of an answer together with its body.

    Each system call lets another thread run, such as the outbox's, and that may take the rest of
    the answer's time.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        """Send data, or keep the head of an answer until more comes or it is flushed."""
        is_head = data.endswith(b"\r\n\r\n") and not data.startswith(b"HTTP/1.1 100")
        if is_head and not self._head:
            self._head = data
        else:
            head, self._head = self._head, b""
            self._transport.write(head + data)

    def flush(self) -> None:
        """Send a head that no body follows."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Close when all has been sent."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
