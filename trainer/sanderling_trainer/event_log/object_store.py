"""The place of files: a folder of this machine, or an object store behind a URL. Refuses to know what the files mean.

A file appears whole and durable, or not at all. Trouble is an `OSError`, and an absent file a `FileNotFoundError`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from sanderling.runtime.files import flush_path

PART = ".part"
REMOTE_TIMEOUT = timedelta(seconds=10)
JOB_TIMEOUT = timedelta(minutes=10)


class ObjectStore(Protocol):
    """What the collector and the jobs behind it need of a place."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file, in the place of an older one of this name; it is durable when this returns."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Write a file as `put` does, or raise `FileExistsError`: of several who create one name, one succeeds."""
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

    def clean(self, older_s: float) -> None:
        """Remove what crashes left half written, where nobody has touched it for so long."""
        ...


class LocalObjectStore:
    """A folder. Written here by hand because obstore's local store flushes nothing to the disk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: set[Path] = set()

    def put(self, name: str, data: bytes) -> None:
        """Write beside, flush, rename, flush the folder's entry."""
        path = self._root / name
        with self._part(path, data) as part:
            part.rename(path)
        flush_path(path.parent)

    def create(self, name: str, data: bytes) -> None:
        """Write beside, flush, link, which fails where a file is, flush the folder's entry."""
        path = self._root / name
        with self._part(path, data) as part:
            os.link(part, path)
            part.unlink()
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
        return sorted(
            str(path.relative_to(self._root))
            for path in found
            if path.is_file() and path.suffix != PART
        )

    def delete(self, name: str) -> None:
        """Unlink, and flush the folder's entry."""
        path = self._root / name
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            flush_path(path.parent)

    def clean(self, older_s: float) -> None:
        """Remove half-written files; ages are told by the clock of the file system that dates them."""
        with self._part(self._root / "now", b"") as now_file:
            now = now_file.stat().st_mtime
            now_file.unlink()
        for part in self._root.rglob(f".*{PART}"):
            with suppress(FileNotFoundError):  # its writer came to an end
                if now - part.stat().st_mtime >= older_s:
                    part.unlink()

    @contextmanager
    def _part(self, path: Path, data: bytes) -> Iterator[Path]:
        """Write and flush a file beside `path` under a name of its own; remove it if that, or what follows, fails."""
        self._make(path.parent)
        part = path.with_name(f".{path.name}.{os.urandom(6).hex()}{PART}")
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield part
        except BaseException:
            with suppress(OSError):  # what stays goes with `clean`
                part.unlink()
            raise

    def _make(self, folder: Path) -> None:
        """Make a folder, durably; one that is there may be another's who died before it flushed."""
        if folder in self._made and folder.is_dir():
            return
        if folder != self._root:
            self._make(folder.parent)
        folder.mkdir(parents=True, exist_ok=True)
        flush_path(folder.parent)
        self._made.add(folder)


class RemoteObjectStore:
    """S3, GCS, Azure, memory: the service answers a put when the object is durable. Keys come from the environment.

    A request may take `timeout`, body included.
    """

    def __init__(self, url: str, timeout: timedelta = REMOTE_TIMEOUT) -> None:
        import obstore.exceptions
        from obstore.store import from_url

        try:
            self._store = from_url(
                url,
                client_options={
                    "timeout": timeout,
                    "connect_timeout": REMOTE_TIMEOUT,
                    "allow_http": True,
                },
                retry_config={"max_retries": 1, "retry_timeout": timeout},
            )
        except (obstore.exceptions.BaseError, ValueError) as error:
            reason = str(error).splitlines()[0]  # the rest is a dump of obstore's structures
            raise ValueError(
                f"{url}: expected a folder, or the URL of an object store such as s3://bucket/prefix: {reason}"
            ) from error

    def put(self, name: str, data: bytes) -> None:
        """Put one object, in one request."""
        with _trouble(name):
            self._store.put(name, data, use_multipart=False)

    def create(self, name: str, data: bytes) -> None:
        """Put one object on the condition that there is none (`If-None-Match: *`)."""
        with _trouble(name):
            self._store.put(name, data, use_multipart=False, mode="create")

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
            return sorted(
                entry["path"] for page in self._store.list(prefix=folder) for entry in page
            )

    def delete(self, name: str) -> None:
        """Delete one object."""
        try:
            with _trouble(name):
                self._store.delete(name)
        except FileNotFoundError:
            return

    def clean(self, older_s: float) -> None:
        """Do nothing: an object is there whole or not at all."""


def open_store(url: str, timeout: timedelta = REMOTE_TIMEOUT) -> ObjectStore:
    """Open a local folder, or, when `url` has a scheme, an object store; `JOB_TIMEOUT` is for who moves large files."""
    return RemoteObjectStore(url, timeout) if "://" in url else LocalObjectStore(Path(url))


@contextmanager
def _trouble(name: str) -> Iterator[None]:
    import obstore.exceptions

    try:
        yield
    except FileNotFoundError:
        raise
    except obstore.exceptions.AlreadyExistsError as error:
        raise FileExistsError(f"{name}: it is there already") from error
    except obstore.exceptions.BaseError as error:
        raise OSError(f"{name}: {error}") from error
