"""The lock of a state folder, for an engine whose outbox does not open: the folder is its own all the same.

Refuses to know what lies in the folder.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

import apsw

from sanderling import forks
from sanderling.database import lock, unusable


class Claim:
    """Holds a folder's lock until it is closed; raises `StorageError` where it cannot be had."""

    def __init__(self, folder: Path) -> None:
        try:
            self._lock = lock(folder)
        except apsw.Error as error:
            raise unusable(folder, error) from error
        forks.watch(self)

    def close(self) -> None:
        """Let another engine have the folder."""
        with suppress(apsw.Error):
            self._lock.close()

    def in_child(self) -> None:
        """After a fork: the lock is the parent's, and this process must never close it."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._lock))
