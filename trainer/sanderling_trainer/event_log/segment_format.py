"""The format of segments and dead letters: a zstd frame of JSON lines.

A line of a segment is {"received_at", "sent_at", "event"} with wall ms since 1970; a dead letter,
an event that was rejected, is {"received_at", "reason", "line"}.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
import zstandard

from sanderling.errors import EventError
from sanderling.events import schema as wire
from sanderling.runtime.clock import Clock, uuid7

SEGMENTS = "segments"
DEAD = "dead"
SUFFIX = ".jsonl.zst"
DAY_S = 86_400


class SegmentLine(msgspec.Struct, frozen=True):
    """One line of a segment; the event's bytes are those that the device sent."""

    received_at: int
    sent_at: int | None
    event: msgspec.Raw


class DeadLetter(msgspec.Struct, frozen=True):
    """A rejected line, with the reason."""

    received_at: int
    reason: str
    line: str


_decoder = msgspec.json.Decoder(SegmentLine)


def encode_line(event: bytes, received_at: int, sent_at: int | None) -> bytes:
    """Return the line of a segment for an encoded event."""
    # Built by hand, so that the device's bytes are stored as they are, neither parsed nor encoded
    # anew.
    sent = b"null" if sent_at is None else b"%d" % sent_at
    return b'{"received_at":%d,"sent_at":%b,"event":%b}' % (received_at, sent, event)


def encode_dead_letter(rejected: bytes, received_at: int, reason: str) -> bytes:
    """Return a dead letter for a rejected line, which need not be JSON, nor text."""
    text = rejected[: wire.MAX_LINE].decode("utf-8", "backslashreplace")
    return msgspec.json.encode(DeadLetter(received_at, reason, text))


def new_file_name(folder: str, clock: Clock) -> str:
    """Return folder/YYYY-MM-DD/<uuid7>.jsonl.zst for the current day (UTC)."""
    return f"{folder}/{utc_day(clock)}/{uuid7(clock.wall_ms())}{SUFFIX}"


def utc_day(clock: Clock, days_ago: int = 0) -> str:
    """Return the day in UTC as YYYY-MM-DD: today's, or that of some days ago."""
    seconds = clock.wall_ms() / 1000 - days_ago * DAY_S
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def pack(lines: Iterable[bytes]) -> bytes:
    """Return the bytes of a file with these lines."""
    return zstandard.ZstdCompressor(level=3).compress(b"\n".join(lines) + b"\n")


def unpack(data: bytes) -> list[bytes]:
    """Return the lines of a file; raise `EventError` when it is damaged or cut off."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    try:
        content = frame.decompress(data)
    except zstandard.ZstdError as error:
        raise EventError(f"expected a zstd frame: {error}") from error
    if not frame.eof:
        raise EventError("expected a whole zstd frame, found one that is cut off")

    *lines, rest = content.split(b"\n")
    if rest:
        raise EventError(f"expected whole lines, found {len(rest)} bytes after the last newline")
    return lines


def decode_line(line: bytes) -> SegmentLine:
    """Decode one line of a segment; raise `EventError` when it is something else."""
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise EventError(f"expected a line of a segment: {error}") from error
