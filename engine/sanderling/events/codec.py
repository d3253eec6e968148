"""The bytes of events: one JSON line each, joined into one zstd frame a batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import zstandard
from msgspec import UNSET, UnsetType

from sanderling.errors import BatchSizeError, EventError
from sanderling.events.schema import (
    MAX_BATCH_BYTES,
    MAX_LINE,
    MAX_POOL_ITEMS,
    MAX_WINDOW_BYTES,
    ROOM_FOR_MARK,
    ROOM_FOR_POOL,
    ROOM_FOR_SLOT,
    Event,
)

PIECE_BYTES = 64 * 1024
LEVEL = 3

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """Return one JSON line without its newline."""
    return _encoder.encode(event)


def slot_bytes(item: str, marked: bool = False) -> int:
    """Return an upper bound of the bytes that a slot with this item takes in an encoded decision;
    `marked` as a newcomer or pinned."""
    return ROOM_FOR_SLOT + marked * ROOM_FOR_MARK + len(_encoder.encode(item))


def fitting_pool(items: Iterable[str], pool: int) -> list[str] | UnsetType:
    """Return the ids of the items of a pool, or UNSET where they have no room in a decision."""
    if not 0 < pool <= MAX_POOL_ITEMS:
        return UNSET
    ids = list(items)
    return ids if len(_encoder.encode(ids)) <= ROOM_FOR_POOL else UNSET


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
    return zstandard.ZstdCompressor(level=LEVEL).compress(b"\n".join(lines))


def unpack(body: bytes, limit: int = MAX_BATCH_BYTES) -> Iterator[bytes]:
    """Return the lines of a batch.

    Raises `BatchSizeError` beyond `limit` bytes, `EventError` unless the body is exactly one whole
    zstd frame.
    """
    unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
    try:
        _check_unpacked_size(unpacker, body, limit)
        frame = unpacker.decompressobj()
        data = frame.decompress(body)
    except (zstandard.ZstdError, MemoryError) as error:
        raise EventError(
            f"expected a zstd frame, found {len(body)} bytes that are not: {error}"
        ) from error

    if not frame.eof:
        raise EventError(f"expected a whole zstd frame, found one cut off after {len(body)} bytes")
    if frame.unused_data:
        raise EventError(
            f"expected one zstd frame, found {len(frame.unused_data)} more bytes behind it"
        )
    return (line for line in data.split(b"\n") if line)


def _check_unpacked_size(unpacker: zstandard.ZstdDecompressor, body: bytes, limit: int) -> None:
    """Raise `BatchSizeError` when a frame unpacks to more than `limit` bytes, using little memory.

    The size in the frame's header may lie, so the frame is first read piece by piece, up to the
    limit.
    """
    with unpacker.stream_reader(body) as reader:
        size = 0
        piece = PIECE_BYTES
        # A short piece is the frame's end. Reading on would take what follows for another frame.
        while piece == PIECE_BYTES:
            piece = len(reader.read(PIECE_BYTES))
            size += piece
            if size > limit:
                raise BatchSizeError(
                    f"expected a batch of at most {limit} bytes when unpacked, found more"
                )
