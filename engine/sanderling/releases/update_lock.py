"""One update at a time for a state folder, across processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sanderling.errors import UpdateError


@contextmanager
def exclusive(trust: Path) -> Iterator[None]:
    """Hold the lock of the metadata folder; raise `UpdateError` where another process has it.

    An updating process outlives a parent that is killed, so that a second one may be started beside
    it.
    """
    with (trust / ".lock").open("w") as lock:
        try:
            _lock(lock)
        except OSError as error:
            raise UpdateError(
                f"{trust.parent}: another update is running for this state folder;"
                " try again when it has ended"
            ) from error
        yield


def _lock(file: IO[str]) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
