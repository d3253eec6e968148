"""Reads the body of a request within its limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from sanderling.service.limits import Limits, RefusalError

Receive = Callable[[], Awaitable[dict[str, Any]]]


class BodyReader:
    """Reads bodies, so many at once as the limits allow."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._total_bytes = 0

    async def read(self, receive: Receive, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Return the body; raise `RefusalError` when it is too large, too slow or cut off."""
        declared = next((value for name, value in headers if name == b"content-length"), b"0")
        if not declared.isdigit() or int(declared[:20]) > self._limits.body_bytes:
            raise self._too_large()

        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise RefusalError(400, "body: expected a whole one, the client has gone")
                    self._add(body, message.get("body", b""))
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            limit = f"{self._limits.body_s:g} s"
            raise RefusalError(408, f"body: expected a whole one within {limit}") from None
        finally:
            self._total_bytes -= len(body)

    def _add(self, body: bytearray, part: bytes) -> None:
        body += part
        self._total_bytes += len(part)
        if len(body) > self._limits.body_bytes:  # a chunked body declares no length
            raise self._too_large()
        if self._total_bytes > self._limits.total_body_bytes:
            raise RefusalError(503, "body: expected room for it, found too many bodies at once")

    def _too_large(self) -> RefusalError:
        return RefusalError(
            413, f"body: expected at most {self._limits.body_bytes} bytes, found more"
        )
