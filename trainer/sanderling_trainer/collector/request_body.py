"""Reads the body of a request within its bounds of size and time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from sanderling_trainer.collector.limits import Limits, RefusalError


async def read_body(request: Request, limits: Limits) -> bytes:
    """Return the packed body; raise `RefusalError` when it is not zstd, too large, too slow or cut off."""
    most = limits.body_bytes
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > most:
        raise RefusalError(
            413, f"expected a body of at most {most} bytes, found {declared} declared"
        )
    if request.headers.getlist("content-encoding") != ["zstd"]:
        raise RefusalError(415, "expected the content-encoding zstd")

    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_s):
            async for part in request.stream():
                body += part
                # A chunked body declares no length.
                if len(body) > most:
                    raise RefusalError(413, f"expected a body of at most {most} bytes, found more")
    except TimeoutError as error:
        raise RefusalError(408, f"expected a whole body within {limits.body_s:g} s") from error
    except ClientDisconnect as error:
        raise RefusalError(400, "the client went away") from error
    return bytes(body)
