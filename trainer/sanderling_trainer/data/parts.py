"""A log in parts, each with all that there is of its installs, so that it need not fit into memory.

While there are few bodies there is one part. When there are more, lines go to files, one for each range of installs,
and each file is a part. The files have no names, so nothing is left of them when the process ends. Refuses to know
stores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO

import msgspec
import zstandard

from sanderling.contract import events as wire
from sanderling.errors import EventError
from sanderling_trainer.data.gathering import Gathering

MOST_BODIES = 500_000
PARTS = 64
BUFFER_BYTES = 256 * 1024

Row = tuple[bytes, int, int | None, int]


class _Named(msgspec.Struct):
    install: wire.Id


_named = msgspec.json.Decoder(_Named)
_rows = msgspec.msgpack.Decoder(list[Row])


class Parts:
    """Takes lines as a `Gathering` does; iterating yields the gathering of each part, in the order of installs."""

    def __init__(self, most_bodies: int = MOST_BODIES) -> None:
        self._most_bodies = most_bodies
        self._gathering = Gathering()
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
        if len(self._gathering) > self._most_bodies:
            files = (self._open.enter_context(tempfile.TemporaryFile()) for _ in range(PARTS))  # noqa: SIM115
            self._files = [_File(file) for file in files]
            for seen in self._gathering:
                self._set_down(seen.body, seen.received_at, seen.sent_at, seen.times)
            self._gathering = Gathering()

    def _set_down(self, *row: *Row) -> None:
        try:
            install = _named.decode(row[0]).install
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise EventError(f"expected an event of an install: {error}") from error
        self._files[int(install[:8], 16) * PARTS >> 32].add(row)

    def __iter__(self) -> Iterator[Gathering]:
        if not self._files:
            yield self._gathering
        for file in self._files:
            gathering = Gathering()
            for row in file:
                gathering.add(*row)
            yield gathering


class _File:
    """Rows on disk, and those that wait to be written together."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._rows, self._bytes = file, list[Row](), 0

    def add(self, row: Row) -> None:
        self._rows.append(row)
        self._bytes += len(row[0])
        if self._bytes >= BUFFER_BYTES:
            frame = zstandard.compress(msgspec.msgpack.encode(self._rows), level=1)
            self._file.write(len(frame).to_bytes(8) + frame)
            self._rows, self._bytes = [], 0

    def __iter__(self) -> Iterator[Row]:
        self._file.seek(0)
        while size := self._file.read(8):
            yield from _rows.decode(zstandard.decompress(self._file.read(int.from_bytes(size))))
        yield from self._rows
