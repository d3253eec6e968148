"""The lock of a state folder: one engine per folder, with or without an outbox."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import apsw

from sanderling.errors import StorageError
from sanderling.runtime.files import make_private
from sanderling.runtime.fork_safety import connect

LOCK = "outbox.lock"
WRITING = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE


class FolderLock:
    """Holds a folder's lock until it is closed.

    Raises `StorageError` when another engine holds it, or the file cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        make_private(folder / LOCK)
        try:
            self._connection = connect(folder / LOCK, WRITING)
            self._connection.execute("BEGIN EXCLUSIVE")
        except apsw.BusyError:
            self._connection.close()
            raise StorageError(
                f"{folder}: expected one engine per state folder, found another: close it first"
            ) from None
        except apsw.Error as error:
            raise unusable(folder, error) from error

    def close(self) -> None:
        """Release the folder."""
        with suppress(apsw.Error):  # a failing disk must not keep an engine from closing
            self._connection.close()


def unusable(folder: Path, error: Exception) -> StorageError:
    """Return the error for a folder in which no outbox can be opened."""
    return StorageError(
        f"expected a usable outbox in {folder}: {error}: free the disk or fix the rights"
    )
