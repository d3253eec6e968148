"""Files written durably: write beside, flush, rename, flush the folder. And files that other users
of the machine cannot read."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def make_private_folder(folder: Path) -> None:
    """Make a folder for this user alone (mode 0700), if it is missing; leave an older one as it
    is."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def make_private(path: Path) -> None:
    """Make a file for this user alone (mode 0600), if it is missing, or restrict an older one.

    Errors are ignored: whoever opens the file next meets them.
    """
    with suppress(OSError):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            # Never opened here: closing it would end the locks that SQLite holds on it.
            if path.is_file():
                path.chmod(0o600)


def flush_path(path: Path) -> None:
    """Flush one file, or the entries of one folder, to the disk.

    Windows cannot open folders, and flushes only files that it may write.
    """
    is_windows = os.name == "nt"
    if is_windows and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if is_windows else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(folder: Path) -> None:
    """Flush every file of a flat folder, and then the folder's own entries."""
    for path in [*sorted(folder.iterdir()), folder]:
        flush_path(path)


def partial_path(path: Path) -> Path:
    """Return the name under which `path` is written before it is complete."""
    return path.with_name(f"{path.name}.partial")


def replace_durably(partial: Path, path: Path) -> None:
    """Flush a complete file and give it its final name, in place of an older file of that name.

    After a crash either the old or the new content is there, never a mixture.
    """
    flush_path(partial)
    partial.replace(path)
    flush_path(path.parent)


def write_durably(path: Path, data: bytes) -> None:
    """Write a private file so that after a crash it has either its old or its new content."""
    partial = partial_path(path)
    make_private(partial)
    partial.write_bytes(data)
    replace_durably(partial, path)


def publish(folder: Path, target: Path) -> None:
    """Give a complete and flushed folder its final name; `target` must not exist."""
    folder.rename(target)
    flush_path(target.parent)
