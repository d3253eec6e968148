"""Writing segments and dead letters: a file appears whole and durable, or not at all. Refuses to know their meaning."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import zstandard

from sanderling.clock import Clock, uuid7
from sanderling.contract.seal import flush_path
from sanderling_trainer.data.segments import SUFFIX


class Files(Protocol):
    """A place for immutable files. Trouble is an `OSError`."""

    def create(self, name: str, data: bytes) -> None:
        """Write a new file; it is durable when this returns."""
        ...


class LocalFiles:
    """A folder on this machine. Written here by hand because obstore's local store flushes nothing to the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def create(self, name: str, data: bytes) -> None:
        """Write beside, flush, rename, flush the folder's entry."""
        path = self._root / name
        self._make(path.parent)
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        flush_path(path.parent)

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make(folder.parent)
            folder.mkdir(exist_ok=True)
            flush_path(folder.parent)


class RemoteFiles:
    """An object store behind a URL: S3, GCS, Azure, memory."""

    def __init__(self, url: str) -> None:
        from obstore.store import from_url

        self._store = from_url(url)

    def create(self, name: str, data: bytes) -> None:
        """Put one object; the store answers when it has it."""
        import obstore.exceptions

        try:
            self._store.put(name, data)
        except obstore.exceptions.BaseError as error:
            raise OSError(f"{name}: {error}") from error


def open_files(store: str) -> Files:
    """Open a local folder, or, when `store` has a scheme, an object store."""
    return RemoteFiles(store) if "://" in store else LocalFiles(Path(store))


def write(files: Files, folder: str, lines: Sequence[bytes], clock: Clock) -> str:
    """Write lines into one new file, folder/YYYY-MM-DD/<uuid7>.jsonl.zst (UTC); return its name once it is durable."""
    day = datetime.fromtimestamp(clock.wall_ms() / 1000, UTC).strftime("%Y-%m-%d")
    name = f"{folder}/{day}/{uuid7(clock)}{SUFFIX}"
    files.create(name, zstandard.ZstdCompressor(level=3).compress(b"\n".join(lines) + b"\n"))
    return name
