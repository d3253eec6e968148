"""Storage of files in a local folder, or in an object store behind a URL.

A file appears whole and durable, or not at all. Failures are `OSError`, an absent file is
`FileNotFoundError`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sanderling.runtime.files import flush_path

if TYPE_CHECKING:
    from obstore import UpdateVersion

PART_SUFFIX = ".part"
REMOTE_TIMEOUT = timedelta(seconds=10)
"""For collectors, whose devices wait for the answer."""
JOB_TIMEOUT = timedelta(minutes=10)
"""For jobs and readers, which move larger files."""
SCHEMES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")
"""Of the URLs of object stores: S3, Google, Azure."""


class ObjectStore(Protocol):
    """The operations on files that the collector, the jobs and the readers need."""

    def put(self, name: str, data: bytes) -> None:
        """Write a file, replacing one of this name; it is durable when this returns."""
        ...

    def create(self, name: str, data: bytes) -> None:
        """Write a new file; raise `FileExistsError` where there is one.

        Of concurrent calls one succeeds.
        """
        ...

    def replace(self, name: str, data: bytes, old: bytes) -> None:
        """Replace a file whose content is `old`; raise `FileExistsError` where it is another.

        Of concurrent calls with the same `old` one succeeds.
        """
        ...

    def get(self, name: str) -> bytes:
        """Return the bytes of a file."""
        ...

    def has(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names of all files below a folder, sorted."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""
        ...

    def clean(self, older_s: float) -> None:
        """Remove half-written files of crashes, to which nothing was written for `older_s`."""
        ...

    def location(self, name: str) -> str:
        """Return the path or URL of a file, for messages."""
        ...


class LocalObjectStore:
    """A local folder. obstore has one too, which does not flush to the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._durable_folders: set[Path] = set()

    def put(self, name: str, data: bytes) -> None:
        """Write a part file, flush it, rename it, flush the folder."""
        path = self.root / name
        with self._write_part(path, data) as part:
            part.rename(path)
        flush_path(path.parent)

    def create(self, name: str, data: bytes) -> None:
        """Write a part file, flush it, link it, which fails if a file exists, flush the folder."""
        path = self.root / name
        with self._write_part(path, data) as part:
            os.link(part, path)
            part.unlink()
        flush_path(path.parent)

    def replace(self, name: str, data: bytes, old: bytes) -> None:
        """Compare and put, under a lock of the folder."""
        import fcntl  # where it is missing, everything else of this class works

        with (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.get(name) != old:
                raise _changed(self.location(name))
            self.put(name, data)

    def get(self, name: str) -> bytes:
        """Return the bytes of a file."""
        return (self.root / name).read_bytes()

    def has(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        return (self.root / name).is_file()

    def names(self, folder: str) -> list[str]:
        """Return the names below a folder, without half-written files."""
        paths = (self.root / folder).rglob("*")
        return sorted(
            str(path.relative_to(self.root))
            for path in paths
            if path.is_file() and path.suffix != PART_SUFFIX
        )

    def delete(self, name: str) -> None:
        """Unlink, and flush the folder."""
        path = self.root / name
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            flush_path(path.parent)

    def clean(self, older_s: float) -> None:
        """Remove half-written files that are old by the clock of their file system."""
        # On a network file system the server dates files, and its clock may differ from this
        # machine's.
        with self._write_part(self.root / "now", b"") as new_file:
            now = new_file.stat().st_mtime
            new_file.unlink()

        for part in self.root.rglob(f".*{PART_SUFFIX}"):
            with suppress(FileNotFoundError):  # its writer has just renamed it
                if now - part.stat().st_mtime >= older_s:
                    part.unlink()

    def location(self, name: str) -> str:
        """Return the path of a file."""
        return str(self.root / name)

    @contextmanager
    def _write_part(self, path: Path, data: bytes) -> Iterator[Path]:
        """Write and flush a part file beside `path`; remove it if this or the body fails."""
        self._make_folder(path.parent)
        part = path.with_name(f".{path.name}.{os.urandom(6).hex()}{PART_SUFFIX}")
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield part
        except BaseException:
            with suppress(OSError):  # `clean` removes what stays
                part.unlink()
            raise

    def _make_folder(self, folder: Path) -> None:
        """Make a folder durable, also one that exists: its maker may have died before the flush."""
        if folder in self._durable_folders and folder.is_dir():
            return

        if folder != self.root:
            self._make_folder(folder.parent)
        folder.mkdir(parents=True, exist_ok=True)
        flush_path(folder.parent)
        self._durable_folders.add(folder)


class RemoteObjectStore:
    """S3, GCS, Azure or memory, through obstore; credentials come from the environment.

    The service answers a put when the object is durable. A request may take `timeout`, body
    included.
    """

    def __init__(self, url: str, timeout: timedelta = REMOTE_TIMEOUT) -> None:
        import obstore.exceptions
        from obstore.store import from_url

        self.url = url
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
            raise ValueError(
                f"{url}: expected a folder, or the URL of an object store "
                f"such as s3://bucket/prefix: {_reason(error)}"
            ) from error

    def put(self, name: str, data: bytes) -> None:
        """Put one object, in one request."""
        with _as_os_errors(name):
            self._store.put(name, data, use_multipart=False)

    def create(self, name: str, data: bytes) -> None:
        """Put one object, if there is none yet (`If-None-Match: *`)."""
        with _as_os_errors(name):
            self._store.put(name, data, use_multipart=False, mode="create")

    def replace(self, name: str, data: bytes, old: bytes) -> None:
        """Put one object, if the one whose content was compared is still there (`If-Match`)."""
        with _as_os_errors(name):
            found = self._store.get(name)
            if bytes(found.bytes()) != old:
                raise _changed(self.location(name))
            version: UpdateVersion = {"e_tag": found.meta["e_tag"]}
            if found.meta["version"] is not None:
                version["version"] = found.meta["version"]
            self._store.put(name, data, use_multipart=False, mode=version)

    def get(self, name: str) -> bytes:
        """Return the bytes of an object."""
        with _as_os_errors(name):
            return bytes(self._store.get(name).bytes())

    def has(self, name: str) -> bool:
        """Say whether there is an object of this name."""
        try:
            with _as_os_errors(name):
                self._store.head(name)
        except FileNotFoundError:
            return False
        return True

    def names(self, folder: str) -> list[str]:
        """Return the names below a prefix, sorted."""
        with _as_os_errors(folder):
            return sorted(
                entry["path"] for page in self._store.list(prefix=folder) for entry in page
            )

    def delete(self, name: str) -> None:
        """Delete one object."""
        try:
            with _as_os_errors(name):
                self._store.delete(name)
        except FileNotFoundError:
            return

    def clean(self, older_s: float) -> None:
        """Do nothing: object stores have no half-written objects."""

    def location(self, name: str) -> str:
        """Return the URL of an object."""
        return f"{self.url.rstrip('/')}/{name}"


def open_store(url: str, timeout: timedelta = REMOTE_TIMEOUT) -> ObjectStore:
    """Return the store of a local folder or, when `url` has a scheme, of an object store.

    Raises `ValueError` for other schemes, some of which obstore has but keeps in memory or does not
    flush, and for what looks like a mistyped URL, such as s3:/bucket, instead of making a folder of
    that name.
    """
    scheme, separator, _ = url.partition("://")
    if separator and scheme.lower() in SCHEMES:
        return RemoteObjectStore(url, timeout)
    # A single letter before the colon is a drive of Windows.
    if separator or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", url):
        raise ValueError(
            f"{url}: expected a folder, or the URL of an object store such as s3://bucket/prefix;"
            " write ./ in front of a folder with such a name"
        )
    return LocalObjectStore(Path(url))


def _reason(error: Exception) -> str:
    """Return the first line of an error; the others dump obstore's structures."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _changed(where: str) -> FileExistsError:
    return FileExistsError(f"{where}: expected the content that was read, found another writer's")


@contextmanager
def _as_os_errors(name: str) -> Iterator[None]:
    import obstore.exceptions

    try:
        yield
    except FileNotFoundError:
        raise
    except obstore.exceptions.AlreadyExistsError as error:
        raise FileExistsError(f"{name}: expected no file of this name, found one") from error
    except obstore.exceptions.PreconditionError as error:
        raise _changed(name) from error
    except obstore.exceptions.BaseError as error:
        raise OSError(f"{name}: {_reason(error)}") from error
