"""The bytes of segments and dead letters: zstd frames of JSON lines. Refuses to know where they lie.

A segment's line is {"received_at", "sent_at", "event"}, in wall milliseconds since 1970; a dead letter's is
{"received_at", "reason", "line"}.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
import zstandard

from sanderling.errors import EventError
from sanderling.events import schema as wire
from sanderling.runtime.clock import Clock, uuid7

SEGMENTS, DEAD = "segments", "dead"
SUFFIX = ".jsonl.zst"
DAY_S = 86_400


class Line(msgspec.Struct, frozen=True):
    """One line of a segment; the event's bytes are those that the device sent."""

    received_at: int
    sent_at: int | None
    event: msgspec.Raw


class Letter(msgspec.Struct, frozen=True):
    """One dead letter."""

    received_at: int
    reason: str
    line: str


_decoder = msgspec.json.Decoder(Line)


def line(event: bytes, received_at: int, sent_at: int | None) -> bytes:
    """Return one line of a segment around the bytes of an encoded event."""
    sent = b"null" if sent_at is None else b"%d" % sent_at
    return b'{"received_at":%d,"sent_at":%b,"event":%b}' % (received_at, sent, event)


def letter(event: bytes, received_at: int, reason: str) -> bytes:
    """Return one dead letter around bytes that need not be an event, nor text."""
    text = event[: wire.MAX_LINE].decode("utf-8", "backslashreplace")
    return msgspec.json.encode(Letter(received_at, reason, text))


def new_name(folder: str, clock: Clock) -> str:
    """Return folder/YYYY-MM-DD/<uuid7>.jsonl.zst for now (UTC)."""
    return f"{folder}/{day_of(clock)}/{uuid7(clock.wall_ms())}{SUFFIX}"


def day_of(clock: Clock, ago: int = 0) -> str:
    """Return today (UTC), or the day so many days ago, as YYYY-MM-DD."""
    return datetime.fromtimestamp(clock.wall_ms() / 1000 - ago * DAY_S, UTC).strftime("%Y-%m-%d")


def pack(rows: Iterable[bytes]) -> bytes:
    """Return the file of these lines."""
    return zstandard.ZstdCompressor(level=3).compress(b"\n".join(rows) + b"\n")


def unpack(data: bytes) -> list[bytes]:
    """Return the lines of a file; raise `EventError` when it is not whole."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    try:
        content = frame.decompress(data)
    except zstandard.ZstdError as error:
        raise EventError(f"expected a zstd frame: {error}") from error
    if not frame.eof:
        raise EventError("expected a whole zstd frame, found one that is cut off")
    *rows, rest = content.split(b"\n")
    if rest:
        raise EventError(f"expected whole lines, found {len(rest)} bytes behind the last")
    return rows


def parse(row: bytes) -> Line:
    """Read one line of a segment; raise `EventError` when it is something else."""
    try:
        return _decoder.decode(row)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise EventError(f"expected a line of a segment: {error}") from error
