"""The place of files: a folder of this machine, or an object store behind a URL. Refuses to know what the files mean.

A file appears whole and durable, or not at all. Trouble is an `OSError`, and an absent file a `FileNotFoundError`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from sanderling.contract.seal import flush_path

PART = ".part"
REMOTE_TIMEOUT = timedelta(seconds=10)


class Store(Protocol):
    """What the collector and the jobs behind it need of a place."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file, in the place of an older one of this name; it is durable when this returns."""
        ...

    def get(self, name: str) -> bytes:
        """Return the bytes of a file."""
        ...

    def has(self, name: str) -> bool:
        """Say whether there is a file of this name."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names of all files below a folder, in order."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is as good as removed."""
        ...


class LocalStore:
    """A folder. Written here by hand because obstore's local store flushes nothing to the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, name: str, data: bytes) -> None:
        """Write beside, flush, rename, flush the folder's entry."""
        path = self._root / name
        self._make(path.parent)
        part = path.with_name(f".{path.name}{PART}")
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        flush_path(path.parent)

    def get(self, name: str) -> bytes:
        """Return the bytes of a file."""
        return (self._root / name).read_bytes()

    def has(self, name: str) -> bool:
        """Say whether there is a file of this name."""
        return (self._root / name).is_file()

    def names(self, folder: str) -> list[str]:
        """Return the names below a folder; what a crash left half written has none."""
        found = (self._root / folder).rglob("*")
        return sorted(str(path.relative_to(self._root)) for path in found if path.is_file() and path.suffix != PART)

    def delete(self, name: str) -> None:
        """Unlink, and flush the folder's entry."""
        path = self._root / name
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            flush_path(path.parent)

    def _make(self, folder: Path) -> None:
        if not folder.is_dir():
            self._make(folder.parent)
            folder.mkdir(exist_ok=True)
            flush_path(folder.parent)


class RemoteStore:
    """S3, GCS, Azure, memory: the service answers a put when the object is durable. Keys come from the environment."""

    def __init__(self, url: str) -> None:
        from obstore.store import from_url

        self._store = from_url(
            url,
            client_options={"timeout": REMOTE_TIMEOUT, "allow_http": True},
            retry_config={"max_retries": 1, "retry_timeout": REMOTE_TIMEOUT},
        )

    def put(self, name: str, data: bytes) -> None:
        """Put one object, in one request."""
        with _trouble(name):
            self._store.put(name, data, use_multipart=False)

    def get(self, name: str) -> bytes:
        """Return the bytes of an object."""
        with _trouble(name):
            return bytes(self._store.get(name).bytes())

    def has(self, name: str) -> bool:
        """Say whether there is an object of this name."""
        try:
            with _trouble(name):
                self._store.head(name)
        except FileNotFoundError:
            return False
        return True

    def names(self, folder: str) -> list[str]:
        """Return the names below a prefix."""
        with _trouble(folder):
            return sorted(entry["path"] for page in self._store.list(prefix=folder) for entry in page)

    def delete(self, name: str) -> None:
        """Delete one object."""
        try:
            with _trouble(name):
                self._store.delete(name)
        except FileNotFoundError:
            return


def open_store(url: str) -> Store:
    """Open a local folder, or, when `url` has a scheme, an object store."""
    return RemoteStore(url) if "://" in url else LocalStore(Path(url))


@contextmanager
def _trouble(name: str) -> Iterator[None]:
    import obstore.exceptions

    try:
        yield
    except FileNotFoundError:
        raise
    except obstore.exceptions.BaseError as error:
        raise OSError(f"{name}: {error}") from error
