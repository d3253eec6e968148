"""Checks of paths to write to, made before the work: writing would fail only after it."""

from __future__ import annotations

import os
from pathlib import Path


def check_creatable(path: Path) -> None:
    """Raise `OSError` unless `path`, and the folders above it that are missing, can be made."""
    above = next(parent for parent in path.absolute().parents if parent.exists())

    if not above.is_dir():
        raise NotADirectoryError(
            f"{path}: expected a folder above it, found the file {above}; choose another path"
        )
    if not os.access(above, os.W_OK):
        raise PermissionError(
            f"{path}: expected a folder that can be written, found {above}; choose another path"
        )


def check_folder(path: Path) -> None:
    """Raise `OSError` unless a folder is at `path`, or can be made there."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path}: expected a folder, found a file; choose another path")
    check_creatable(path)


def check_new(path: Path) -> None:
    """Raise `OSError` unless nothing is at `path` and something can be made there."""
    if path.exists():
        raise FileExistsError(
            f"{path}: expected nothing there yet; remove it or choose another path"
        )
    check_creatable(path)


def check_file(path: Path) -> None:
    """Raise `OSError` unless a file is at `path`, or can be made there."""
    if path.is_dir():
        raise IsADirectoryError(
            f"{path}: expected the name of a file, found a folder; choose another path"
        )
    check_creatable(path)
