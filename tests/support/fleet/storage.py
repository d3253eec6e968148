"""A device's disk that can die at any of its operations, by a kill or by a power cut, and fail for
a while.

After a kill the files are as the system had them; after a power cut every write since the last
flush of its file is there or not, each by chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import apsw

from tests.support.disks import Disk, DiskFile

KEPT = ("outbox.db", "outbox.db-wal")
SLOTS = "bundles/slots.json"
Unflushed = list[tuple[int, bytes | None]]


class FleetDisk(Disk):
    """The disk of one state folder; after `dies_in` operations it takes an image."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        super().__init__()
        self.folder, self.rng = folder, rng
        self.failing: type[apsw.Error] | None = None
        self.dies_in: int | None = None
        self.power = False
        self.on_death: Callable[[], None] = lambda: None
        self._flushed: dict[str, bytearray] = {}
        self._unflushed: dict[str, Unflushed] = {}
        self.image: dict[str, bytes] | None = None

    def xOpen(self, name, flags):  # noqa: N802 - apsw's name
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self.before("open", path, 0)
        return FleetFile(self, name, path, flags)

    def xDelete(self, filename, syncdir):  # noqa: N802
        self.before("delete", filename, 0)
        self._flushed.pop(Path(filename).name, None)
        self._unflushed.pop(Path(filename).name, None)
        super().xDelete(filename, syncdir)

    def before(self, operation: str, path: str, size: int) -> None:
        if self.dies_in is not None and self.image is None:
            if self.dies_in == 0:
                self.take_image()
                self.on_death()
            self.dies_in -= 1
        if self.failing is not None:
            raise self.failing("injected")

    def written(self, path: str, offset: int, data: bytes | None) -> None:
        """Record a write, or without data a truncation to `offset` bytes."""
        self._unflushed.setdefault(Path(path).name, []).append((offset, data))

    def flush(self, path: str) -> None:
        name = Path(path).name
        _apply(self._flushed.setdefault(name, bytearray()), self._unflushed.pop(name, []))

    def take_image(self) -> None:
        """Keep what a crash at this moment would leave."""
        self.image = self._as_they_lie(SLOTS)  # flushed before it has its name
        if not self.power:
            self.image |= self._as_they_lie(*KEPT)
            return
        for name in sorted({*self._flushed, *self._unflushed} & set(KEPT)):
            content = bytearray(self._flushed.get(name, b""))
            kept = self.rng.choice([0.0, 0.5, 1.0])
            _apply(
                content, [one for one in self._unflushed.get(name, []) if self.rng.random() < kept]
            )
            self.image[name] = bytes(content)

    def _as_they_lie(self, *names: str) -> dict[str, bytes]:
        found = {name: self.folder / name for name in names}
        return {name: path.read_bytes() for name, path in found.items() if path.exists()}

    def restore(self) -> None:
        """Restore the image of the crash."""
        assert self.image is not None
        for path in self.folder.glob("outbox.db*"):
            path.unlink()
        for name, content in self.image.items():
            (self.folder / name).write_bytes(content)
        self.image, self.dies_in = None, None
        self.adopt()

    def adopt(self) -> None:
        """Count the files as they are as flushed."""
        found = [path for path in self.folder.glob("outbox.db*") if path.name in KEPT]
        self._flushed = {path.name: bytearray(path.read_bytes()) for path in found}
        self._unflushed.clear()


class FleetFile(DiskFile):
    disk: FleetDisk

    def xWrite(self, data, offset):  # noqa: N802
        self.disk.before("write", self.path, 0)
        super(DiskFile, self).xWrite(data, offset)
        self.disk.written(self.path, offset, bytes(data))

    def xSync(self, flags):  # noqa: N802
        self.disk.before("sync", self.path, 0)
        super(DiskFile, self).xSync(flags)
        self.disk.flush(self.path)

    def xTruncate(self, size):  # noqa: N802
        self.disk.before("truncate", self.path, 0)
        super(DiskFile, self).xTruncate(size)
        self.disk.written(self.path, size, None)


def _apply(content: bytearray, writes: Unflushed) -> None:
    for offset, data in writes:
        if data is None:
            del content[offset:]
        else:
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(data)] = data
