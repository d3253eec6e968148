"""HTTP connections with one deadline for everything that is sent and received on them.

A socket's time-out is not enough, because it applies to each single operation: a server that sends
one byte every few seconds, or reads a batch as slowly, could hold a connection for hours without
ever reaching it. urllib3's `total` time-out has the same gap while it reads a response. Before each
operation these connections therefore set the socket's time-out to what is left of the deadline.
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

CHUNK_BYTES = 16 * 1024  # as much as one TLS record holds

_deadline_s: ContextVar[float] = ContextVar("deadline_s", default=math.inf)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Let every operation on these connections raise `TimeoutError` after so many seconds."""
    before = _deadline_s.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline_s.reset(before)


def _remaining_s(at_most_s: float | None) -> float:
    """Return the seconds that one operation may take, `at_most_s` or less."""
    remaining_s = _deadline_s.get() - time.monotonic()
    if remaining_s <= 0:
        raise TimeoutError("timed out: the request and its response took longer than allowed")
    return remaining_s if at_most_s is None else min(remaining_s, at_most_s)


class _SocketReader(io.RawIOBase):
    """Reads from a socket, and sets its time-out before each read."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._timeout_s = connection.gettimeout()
        self._raw = connection.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(_remaining_s(self._timeout_s))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _ReadableSocket:
    """The one method of a socket that `HTTPResponse` uses."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_SocketReader(self._socket))


class _Response(HTTPResponse):
    def __init__(self, connection: socket.socket, *args: Any, **kwargs: Any) -> None:
        readable: Any = _ReadableSocket(connection)
        super().__init__(readable, *args, **kwargs)


class _Connection(HTTPConnection):
    response_class = _Response

    def send(self, data: Any) -> None:
        # In chunks: with TLS, one `sendall` renews the time-out with every record that it sends.
        for start in range(0, len(data), CHUNK_BYTES):
            if self.sock is not None:
                self.sock.settimeout(_remaining_s(self.timeout))
            super().send(data[start : start + CHUNK_BYTES])


class _TlsConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


POOLS: dict[str, type[HTTPConnectionPool]] = {"http": _Pool, "https": _TlsPool}
"""For `pool_classes_by_scheme` of a urllib3 `PoolManager`."""
