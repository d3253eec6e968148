"""Bodies on their way in: how large, for how long, and which one makes room for others. Refuses to know events."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from sanderling_trainer.fleet.limits import Limits, RefusalError


class Bodies:
    """The bodies that are being received, those that began first in front."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._began: dict[asyncio.Timeout, float] = {}

    async def read(self, request: Request) -> bytes:
        """Return the body, up to the cap and within `body_s`, whatever was declared; raise `RefusalError`."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_s) as end:
                self._began[end] = asyncio.get_running_loop().time()
                try:
                    async for part in request.stream():
                        body += part
                        if len(body) > self._limits.body_bytes:
                            raise RefusalError(
                                413, f"expected a body of at most {self._limits.body_bytes} bytes, found more"
                            )
                finally:
                    self._began.pop(end, None)
        except TimeoutError as error:
            raise RefusalError(408, f"expected a whole body within {self._limits.body_s:g} s, or sooner") from error
        except ClientDisconnect as error:
            raise RefusalError(400, "the client went away") from error
        return bytes(body)

    def end_slowest(self) -> bool:
        """Give up the body that has been on its way longest, if longer than `slow_s`; say whether there was one."""
        now = asyncio.get_running_loop().time()
        end, began = next(iter(self._began.items()), (None, now))
        if end is None or now - began < self._limits.slow_s:
            return False
        del self._began[end]
        if not end.expired():
            end.reschedule(now)
        return True
