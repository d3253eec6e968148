"""A log in parts, each with all that there is of its installs, so that it need not fit into memory.

While the bodies take little memory there is one part. When they take more, lines go to files, one for each range of
installs, and each file is a part, or, where it is too large itself, parts again. What one install has is never cut. The
files have no names, so nothing is left of them when the process ends. Refuses to know stores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO

import msgspec
import zstandard

from sanderling.errors import EventError
from sanderling.events import schema as wire
from sanderling_trainer.event_log.deduplication import Deduplicator

MOST_BYTES = 256 * 1024 * 1024
PARTS = 64
LAST = 2**128 - 1
BUFFER_BYTES = 256 * 1024

Row = tuple[bytes, int, int | None, int]


class _Named(msgspec.Struct):
    install: wire.Id


_named = msgspec.json.Decoder(_Named)
_rows = msgspec.msgpack.Decoder(list[Row])


class Parts:
    """Takes lines as a `Deduplicator` does; iterating yields the gathering of each part, in the order of installs.

    The lines that come are of installs from `low` to `high`, ids read as numbers.
    """

    def __init__(self, most_bytes: int = MOST_BYTES, low: int = 0, high: int = LAST) -> None:
        self._most_bytes, self._low, self._high = most_bytes, low, high
        self._gathering = Deduplicator()
        self._files: list[_File] = []
        self._open = ExitStack()

    def __enter__(self) -> Parts:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, body: bytes, received_at: int, sent_at: int | None, times: int = 1) -> None:
        """Take one line; raise `EventError` when its body is no event, or names no install and is read only later."""
        if self._files:
            self._set_down(body, received_at, sent_at, times)
            return
        self._gathering.add(body, received_at, sent_at, times)
        if self._gathering.size > self._most_bytes and self._low < self._high:
            self._files = [_File(self._open) for _ in range(PARTS)]
            for seen in self._gathering:
                self._set_down(seen.body, seen.received_at, seen.sent_at, seen.times)
            self._gathering = Deduplicator()

    def _set_down(self, *row: *Row) -> None:
        try:
            install = int(_named.decode(row[0]).install, 16)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise EventError(f"expected an event of an install: {error}") from error
        self._files[(install - self._low) * PARTS // (self._high - self._low + 1)].add(install, row)

    def __iter__(self) -> Iterator[Deduplicator]:
        if not self._files:
            yield self._gathering
        for file in self._files:
            if file.low <= file.high:
                with Parts(self._most_bytes, file.low, file.high) as parts:
                    for row in file:
                        parts.add(*row)
                    yield from parts


class _File:
    """Rows on disk, and those that wait to be written together; their installs are from `low` to `high`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._file: IO[bytes] | None = None
        self._rows, self._bytes = list[Row](), 0
        self.low, self.high = LAST, 0

    def add(self, install: int, row: Row) -> None:
        self.low, self.high = min(self.low, install), max(self.high, install)
        self._rows.append(row)
        self._bytes += len(row[0])
        if self._bytes >= BUFFER_BYTES:
            self._write()

    def _write(self) -> None:
        if self._file is None:
            self._file = self._stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        frame = zstandard.compress(msgspec.msgpack.encode(self._rows), level=1)
        self._file.write(len(frame).to_bytes(8) + frame)
        self._rows, self._bytes = [], 0

    def __iter__(self) -> Iterator[Row]:
        if self._file is not None:
            self._file.seek(0)
            while size := self._file.read(8):
                yield from _rows.decode(zstandard.decompress(self._file.read(int.from_bytes(size))))
        yield from self._rows
