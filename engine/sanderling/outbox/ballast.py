"""Emergency space: a file that is deleted on a full disk, so that the outbox can still drain."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

from sanderling.outbox.database import PAGE_BYTES, Database
from sanderling.runtime.clock import Entropy
from sanderling.runtime.files import make_private

BALLAST_BYTES = 2 * 2**20
"""The ballast's size where the limit and the disk allow it."""

MIN_LOG_PAGES = 8
"""Pages of the log before it is folded into the file, at least: fewer would cost a fold a write."""


class Ballast:
    """The ballast file of one state folder, and the space that it holds."""

    def __init__(
        self, folder: Path, limit_bytes: int, database: Database, entropy: Entropy
    ) -> None:
        self._path = folder / "ballast"
        self._limit = limit_bytes
        self._database = database
        self._entropy = entropy
        self._size = 0

    def fit(self) -> None:
        """Take a part of the free space: 2 MiB, an eighth of the bound, or a quarter of what is
        free.

        The log is folded into the file before it needs more than half of that space.
        """
        size = self._path.stat().st_size if self._path.exists() else 0
        with suppress(OSError):
            free = shutil.disk_usage(self._path.parent).free + size
            self._size = max(size, min(BALLAST_BYTES, self._limit // 8, free // 4))
            if size < self._size:
                self._fill()
        self._database.checkpoint_every(max(MIN_LOG_PAGES, self._size // 2 // PAGE_BYTES))

    def run(self, action: Callable[[], None]) -> None:
        """Run an action; on a full disk release the ballast and run it again."""
        try:
            action()
        except apsw.FullError:
            with self.released():
                action()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Give the space back for a while; fold the log into the file before it is taken again."""
        self._path.unlink(missing_ok=True)
        try:
            yield
        finally:
            with suppress(apsw.Error):
                self._database.checkpoint()
            with suppress(OSError):
                self._fill()

    def _fill(self) -> None:
        # Random bytes: some file systems compress, and zeros would occupy nothing.
        make_private(self._path)
        self._path.write_bytes(self._entropy(self._size))
