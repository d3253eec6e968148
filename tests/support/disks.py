"""A layer between SQLite and the real disk that can be watched, filled, and made to fail."""

from __future__ import annotations

import itertools
from pathlib import Path

import apsw

BASE = apsw.vfs_names()[0]
numbers = itertools.count()


class Disk(apsw.VFS):
    """A file system that passes everything on and calls `before` and `after`; `with` makes it
    the default."""

    def __init__(self) -> None:
        self.name = f"disk-{next(numbers)}"
        super().__init__(self.name, BASE)

    def __enter__(self):
        apsw.set_default_vfs(self.name)
        return self

    def __exit__(self, *_: object) -> None:
        apsw.set_default_vfs(BASE)

    def xOpen(self, name, flags):  # noqa: N802 - apsw's name
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self.before("open", path, 0)
        return DiskFile(self, name, path, flags)

    def before(self, operation: str, path: str, size: int) -> None:
        """Do nothing, or raise what SQLite shall see; `size` is the file's after the operation."""

    def after(self, operation: str, path: str) -> None:
        """Do nothing."""


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name, path: str, flags) -> None:
        super().__init__(BASE, name, flags)
        self.disk, self.path = disk, path

    def xWrite(self, data, offset):  # noqa: N802
        self.disk.before("write", self.path, offset + len(data))
        super().xWrite(data, offset)
        self.disk.after("write", self.path)

    def xSync(self, flags):  # noqa: N802
        self.disk.before("sync", self.path, 0)
        super().xSync(flags)
        self.disk.after("sync", self.path)

    def xTruncate(self, size):  # noqa: N802
        self.disk.before("truncate", self.path, size)
        super().xTruncate(size)
        self.disk.after("truncate", self.path)


class FaultyDisk(Disk):
    """Fails the operations from number `first` to before `last` with `error`; counts all
    operations."""

    def __init__(
        self, first: int = 0, last: int = 0, error: type[apsw.Error] = apsw.IOError
    ) -> None:
        super().__init__()
        self.first, self.last, self.error, self.operations = first, last, error, 0

    def before(self, operation: str, path: str, size: int) -> None:
        number, self.operations = self.operations, self.operations + 1
        if self.first <= number < self.last:
            raise self.error("injected")


class SmallDisk(Disk):
    """Holds `room` bytes in all of SQLite's files, and `ballast` more once that file is deleted."""

    def __init__(self, ballast: Path, size: int) -> None:
        super().__init__()
        self.room, self.ballast, self.given_up = 2**40, ballast, size
        self.sizes: dict[str, int] = {}

    def before(self, operation: str, path: str, size: int) -> None:
        if operation == "write":
            size = max(self.sizes.get(path, 0), size)
            room = self.room + (0 if self.ballast.exists() else self.given_up)
            if sum(self.sizes.values()) - self.sizes.get(path, 0) + size > room:
                raise apsw.FullError("injected")
        if operation in ("write", "truncate"):
            self.sizes[path] = size
