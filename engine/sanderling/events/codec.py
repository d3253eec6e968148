"""The bytes of events: one JSON line each, joined into one zstd frame a batch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from sanderling.errors import BatchSizeError, EventError
from sanderling.events.schema import (
    MAX_BATCH_BYTES,
    MAX_LINE,
    MAX_NAME,
    MAX_POOL_ITEMS,
    MAX_WINDOW_BYTES,
    ROOM_FOR_MARK,
    ROOM_FOR_POOL,
    ROOM_FOR_SLOT,
    Event,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL = 3
WINDOW_LOG = MAX_WINDOW_BYTES.bit_length() - 1

MAX_SLOT_BYTES = ROOM_FOR_SLOT + ROOM_FOR_MARK + 6 * MAX_NAME + 2
"""At least `slot_bytes` of any item: JSON takes up to six bytes a character, and two for quotes."""

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """Return one JSON line without its newline."""
    return _encoder.encode(event)


def slot_bytes(item: str, marked: bool = False) -> int:
    """Return an upper bound of the bytes that a slot with this item takes in an encoded decision;
    `marked` as a newcomer or pinned."""
    return ROOM_FOR_SLOT + marked * ROOM_FOR_MARK + len(_encoder.encode(item))


def fitting_pool(
    items: Iterable[str], pool: int, boosts: Sequence[float] = ()
) -> list[str] | UnsetType:
    """Return the ids of the items of a pool, or UNSET where they and their boosts have no room in a
    decision."""
    if not 0 < pool <= MAX_POOL_ITEMS:
        return UNSET
    ids = list(items)
    length = len(_encoder.encode(ids)) + len(_encoder.encode(boosts))
    return ids if length <= ROOM_FOR_POOL else UNSET


def decode(line: bytes) -> Event:
    """Read one JSON line; raise `EventError` with the path of the first fault."""
    if len(line) > MAX_LINE:
        raise EventError(f"expected an event of at most {MAX_LINE} bytes, found {len(line)}")
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise EventError(f"not a valid event: {error}") from error


def pack(lines: Iterable[bytes]) -> bytes:
    """Join encoded events into the body of one batch."""
    return zstd.compress(b"\n".join(lines), level=LEVEL)


def unpack(body: bytes, limit: int = MAX_BATCH_BYTES) -> Iterator[bytes]:
    """Return the lines of a batch.

    Raises `BatchSizeError` beyond `limit` bytes, `EventError` unless the body is exactly one whole
    zstd frame.
    """
    # The size in the frame's header may lie, so what counts is what comes out.
    frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})
    try:
        data = frame.decompress(body, max_length=limit + 1)
    except (zstd.ZstdError, MemoryError) as error:
        raise EventError(
            f"expected a zstd frame, found {len(body)} bytes that are not: {error}"
        ) from error

    if len(data) > limit:
        raise BatchSizeError(f"expected a batch of at most {limit} bytes when unpacked, found more")
    if not frame.eof:
        raise EventError(f"expected a whole zstd frame, found one cut off after {len(body)} bytes")
    if frame.unused_data:
        raise EventError(
            f"expected one zstd frame, found {len(frame.unused_data)} more bytes behind it"
        )
    return (line for line in data.split(b"\n") if line)
