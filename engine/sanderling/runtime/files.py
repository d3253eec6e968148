"""Files written durably: write, flush, rename, flush the folder."""

from __future__ import annotations

import os
from pathlib import Path


def flush(folder: Path) -> None:
    """Flush every file of a flat folder, and the folder's own entry, to the disk."""
    for path in [*sorted(folder.iterdir()), folder]:
        flush_path(path)


def flush_path(path: Path) -> None:
    """Flush one file, or the entries of one folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(folder: Path, target: Path) -> None:
    """Give a finished folder its final name, durably; `target` must not exist."""
    folder.rename(target)
    flush_path(target.parent)
