"""Reads the body of a request within its limits of size and time."""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from sanderling_trainer.collector.decompression import ENCODINGS
from sanderling_trainer.collector.limits import Limits, RefusalError


async def read_body(request: Request, limits: Limits) -> tuple[bytes, str]:
    """Return the body and its encoding, which is one of `ENCODINGS`.

    Raises `RefusalError` when it has another one, is too large, too slow or cut off.
    """
    expected = f"expected a body of at most {limits.body_bytes} bytes"
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > limits.body_bytes:
        raise RefusalError(413, f"{expected}, found a content-length of {declared}")
    encodings = request.headers.getlist("content-encoding")
    if len(encodings) != 1 or encodings[0] not in ENCODINGS:
        raise RefusalError(415, f"expected one content-encoding, {' or '.join(ENCODINGS)}")

    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_s):
            async for part in request.stream():
                body += part
                if len(body) > limits.body_bytes:  # a chunked body declares no length
                    raise RefusalError(413, f"{expected}, found more")
    except TimeoutError as error:
        raise RefusalError(408, f"expected a whole body within {limits.body_s:g} s") from error
    except ClientDisconnect as error:
        raise RefusalError(400, "the client disconnected") from error
    return bytes(body), encodings[0]
