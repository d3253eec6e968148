"""The state folder of an engine: the outbox in it, or the reason why nothing can be stored."""

from __future__ import annotations

import logging
from pathlib import Path

from sanderling.errors import StorageError
from sanderling.outbox.folder_lock import FolderLock
from sanderling.outbox.outbox import Outbox
from sanderling.runtime.clock import Clock, Entropy
from sanderling.runtime.files import make_private_folder

log = logging.getLogger("sanderling")


class StateFolder:
    """Opens the outbox of a folder. Where that fails, recommending continues and `fault` says why
    nothing is stored.

    Without an outbox the folder's lock is still taken where it is free: releases are installed in
    the same folder.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        limit_bytes: int,
        clock: Clock,
        entropy: Entropy,
        threaded: bool,
    ) -> None:
        self.folder = folder
        self.fault: str | None = None
        self.outbox: Outbox | None = None
        self._lock: FolderLock | None = None

        if folder is None:
            self.fault = "the engine was opened without a state folder"
            return
        try:
            make_private_folder(folder)
            self.outbox = Outbox(
                folder, limit_bytes=limit_bytes, clock=clock, entropy=entropy, threaded=threaded
            )
        except (StorageError, OSError) as error:
            self.fault = str(error)
            log.error("nothing can be stored, recommending goes on: %s", error)
            self._lock = _lock_of(folder)

    @property
    def owns_folder(self) -> bool:
        """Whether this engine has the folder's lock, so that no other engine changes it."""
        return self.outbox is not None or self._lock is not None

    def write_queued(self) -> None:
        """Write what is queued, where no thread of the outbox does it."""
        if self.outbox:
            self.outbox.work()

    def close(self, timeout_s: float) -> None:
        """Close the outbox within the time, and release the lock."""
        if self.outbox:
            self.outbox.close(timeout_s)
            self.outbox = None
            self.fault = "the engine is closed"
        if self._lock:
            self._lock.close()


def _lock_of(folder: Path) -> FolderLock | None:
    """Return the folder's lock, or None where another engine holds it."""
    try:
        return FolderLock(folder)
    except StorageError:
        return None
