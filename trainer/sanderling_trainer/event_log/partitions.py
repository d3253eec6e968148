"""Splits a log into partitions that fit into memory, each with all events of its installs.

While the events take little memory there is one partition. Beyond that, lines go to unnamed
temporary files, one for each range of installs; a range that is too large itself is split again.
The events of one install are never split. The operating system removes the files when the process
ends, however it ends.
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

MAX_BYTES = 256 * 1024 * 1024
FAN_OUT = 64
LAST_INSTALL = 2**128 - 1
BUFFER_BYTES = 256 * 1024

Row = tuple[bytes, int, int | None, int]


class _WithInstall(msgspec.Struct):
    install: wire.Id


_install_decoder = msgspec.json.Decoder(_WithInstall)
_row_decoder = msgspec.msgpack.Decoder(list[Row])


class Partitions:
    """Takes lines as a `Deduplicator` does; iterating yields one for each range of installs.

    All lines are of installs from `low` to `high`, ids read as numbers.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, low: int = 0, high: int = LAST_INSTALL) -> None:
        self._max_bytes = max_bytes
        self._low = low
        self._high = high
        self._in_memory = Deduplicator()
        self._files: list[_RowFile] = []
        self._open_files = ExitStack()

    def __enter__(self) -> Partitions:
        return self

    def __exit__(self, *_: object) -> None:
        self._open_files.close()

    def add(self, body: bytes, received_at: int, sent_at: int | None, times: int = 1) -> None:
        """Add one line; raise `EventError` when its body is not an event, or has no install."""
        if self._files:
            self._write((body, received_at, sent_at, times))
            return

        self._in_memory.add(body, received_at, sent_at, times)
        if self._in_memory.memory_bytes > self._max_bytes and self._low < self._high:
            self._move_to_files()

    def _move_to_files(self) -> None:
        self._files = [_RowFile(self._open_files) for _ in range(FAN_OUT)]
        for event in self._in_memory:
            self._write((event.body, event.received_at, event.sent_at, event.times))
        self._in_memory = Deduplicator()

    def _write(self, row: Row) -> None:
        try:
            install = int(_install_decoder.decode(row[0]).install, 16)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise EventError(f"expected an event with an install: {error}") from error
        n_installs = self._high - self._low + 1
        self._files[(install - self._low) * FAN_OUT // n_installs].add(install, row)

    def __iter__(self) -> Iterator[Deduplicator]:
        if not self._files:
            yield self._in_memory
        for file in self._files:
            if file.low > file.high:  # no row came
                continue
            with Partitions(self._max_bytes, file.low, file.high) as partitions:
                for row in file:
                    partitions.add(*row)
                yield from partitions


class _RowFile:
    """Rows of the installs `low` to `high`, in a temporary file and a buffer in front of it."""

    def __init__(self, open_files: ExitStack) -> None:
        self._open_files = open_files
        self._file: IO[bytes] | None = None
        self._buffer: list[Row] = []
        self._buffer_bytes = 0
        self.low = LAST_INSTALL
        self.high = 0

    def add(self, install: int, row: Row) -> None:
        self.low = min(self.low, install)
        self.high = max(self.high, install)
        self._buffer.append(row)
        self._buffer_bytes += len(row[0])
        if self._buffer_bytes >= BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._file is None:
            self._file = self._open_files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        frame = zstandard.compress(msgspec.msgpack.encode(self._buffer), level=1)
        self._file.write(len(frame).to_bytes(8) + frame)
        self._buffer = []
        self._buffer_bytes = 0

    def __iter__(self) -> Iterator[Row]:
        if self._file is not None:
            self._file.seek(0)
            while size := self._file.read(8):
                frame = self._file.read(int.from_bytes(size))
                yield from _row_decoder.decode(zstandard.decompress(frame))
        yield from self._buffer
