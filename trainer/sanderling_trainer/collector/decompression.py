"""Decompresses the body of a batch under a cap: one frame of zstd, or one member of gzip."""

from __future__ import annotations

import zlib

import zstandard

from sanderling.errors import BatchSizeError, EventError
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling_trainer.collector.limits import RefusalError

ENCODINGS = ("zstd", "gzip")
"""What `content-encoding` may be: browsers can make gzip by themselves, and no zstd."""

GZIP = 16 + zlib.MAX_WBITS
"""Makes zlib expect the header and the checksum of gzip."""


def lines_of(body: bytes, encoding: str) -> list[bytes]:
    """Return the lines of a body with one of `ENCODINGS`.

    Raises `RefusalError`: 413 above a limit, 400 when the body is not exactly one whole frame or
    member.
    """
    try:
        if encoding == "gzip":
            return _gzip_lines(body)
        return list(codec.unpack(body, min(wire.MAX_BATCH_BYTES, _declared_size(body))))
    except BatchSizeError as error:
        raise RefusalError(413, str(error)) from error
    except EventError as error:
        raise RefusalError(400, str(error)) from error


def _gzip_lines(body: bytes) -> list[bytes]:
    member = zlib.decompressobj(GZIP)
    try:
        data = member.decompress(body, wire.MAX_BATCH_BYTES + 1)
    except zlib.error as error:
        raise EventError(f"expected gzip, found {len(body)} bytes that are not: {error}") from error

    if len(data) > wire.MAX_BATCH_BYTES:
        raise BatchSizeError(
            f"expected a batch of at most {wire.MAX_BATCH_BYTES} bytes when unpacked, found more"
        )
    if not member.eof:
        raise EventError(f"expected a whole gzip member, found one cut off after {len(body)} bytes")
    if member.unused_data:
        raise EventError(
            f"expected one gzip member, found {len(member.unused_data)} more bytes behind it"
        )
    return [line for line in data.split(b"\n") if line]


def _declared_size(body: bytes) -> int:
    """Return the decompressed size that a zstd frame declares, a huge number if it declares none.

    A frame that declares too little is refused when it is decompressed with this cap.
    """
    try:
        header = zstandard.get_frame_parameters(body)
    except zstandard.ZstdError as error:
        reason = f"expected a zstd frame, found {len(body)} bytes that are not: {error}"
        raise RefusalError(400, reason) from error
    if header.window_size > wire.MAX_WINDOW_BYTES:
        raise RefusalError(
            413, f"expected a window of at most {wire.MAX_WINDOW_BYTES}, found {header.window_size}"
        )
    return header.content_size
