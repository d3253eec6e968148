"""Errors of the store's files, with the name of the file and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sanderling.errors import EventError


@contextmanager
def naming_file(name: str) -> Iterator[None]:
    """Add the name of the file, and what to do, to an error that its content causes."""
    try:
        yield
    except FileNotFoundError as error:
        raise EventError(
            f"{name}: the file disappeared while the log was read; "
            "read again when compaction or erasure has ended"
        ) from error
    except EventError as error:
        raise EventError(f"{name}: {error}: restore the file from a copy") from error
