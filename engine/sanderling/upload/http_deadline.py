"""Connections that keep a deadline for all that is said on them. Refuses to know what is said.

A socket's own time-out begins anew with every byte that comes, and with every record of TLS that goes.
"""

from __future__ import annotations

import io
import math
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPResponse
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

PIECE_BYTES = 16 * 1024

_end: ContextVar[float] = ContextVar("end", default=math.inf)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Let everything that these connections do meanwhile raise `TimeoutError` when the time is over."""
    before = _end.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _end.reset(before)


def _left(most: float | None) -> float:
    """Return the seconds that one operation may take, `most` or less."""
    left = _end.get() - time.monotonic()
    if left <= 0:
        raise TimeoutError(
            "expected everything to be said before the deadline, found that it is over"
        )
    return left if most is None else min(left, most)


class _Reader(io.RawIOBase):
    """What comes from a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket, self._most = connection, connection.gettimeout()
        self._raw = connection.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(_left(self._most))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Source:
    """As much of a socket as an answer is read from."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._socket))


class _Response(HTTPResponse):
    def __init__(self, connection: socket.socket, *args: Any, **more: Any) -> None:
        source: Any = _Source(connection)
        super().__init__(source, *args, **more)


class _Connection(HTTPConnection):
    response_class = _Response

    def send(self, data: Any) -> None:
        for start in range(0, len(data), PIECE_BYTES):
            if self.sock is not None:
                self.sock.settimeout(_left(self.timeout))
            super().send(data[start : start + PIECE_BYTES])


class _TlsConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


POOLS: dict[str, type[HTTPConnectionPool]] = {"http": _Pool, "https": _TlsPool}
"""For `pool_classes_by_scheme` of a pool manager."""
