"""SQLite connections that survive a fork.

A child that closed a copy of its parent's connection would release the parent's file locks and
change the memory that both share, so the child keeps every copy open until it ends.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from pathlib import Path

import apsw

_connections: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()


def connect(path: Path, flags: int) -> apsw.Connection:
    """Open a connection that a forked child never closes, not even when it ends."""
    connection = apsw.Connection(str(path), flags=flags)
    _connections.add(connection)
    return connection


def _keep_open() -> None:
    # One reference too many: the child's garbage collector and its exit never finalize them.
    for connection in list(_connections):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_open)
