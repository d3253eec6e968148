"""A device's simulated disk: the device can crash at any operation, and operations can fail.

After a killed process the files are as the operating system had them. After a power cut each write
since the last flush of its file is on the disk or not, at random.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import apsw

from sanderling.events import codec
from sanderling.events.schema import Event
from sanderling.outbox.records import EventRow
from tests.support.disks import Disk, DiskFile

OUTBOX_FILES = ("outbox.db", "outbox.db-wal")
SLOTS_FILE = "bundles/slots.json"
Writes = list[tuple[int, bytes | None]]
"""Offsets and data; None for a truncation to the offset."""


class SimulatedDisk(Disk):
    """The disk of one state folder. A crash takes an `image`, which `restore` puts back."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        super().__init__()
        self.folder = folder
        self.rng = rng
        self.failing: type[apsw.Error] | None = None
        self.crash_after: int | None = None
        self.power_cut = False
        self.on_crash: Callable[[], None] = lambda: None
        self._flushed: dict[str, bytearray] = {}
        self._unflushed: dict[str, Writes] = {}
        self.image: dict[str, bytes] | None = None

    def xOpen(self, name, flags):  # noqa: N802 - apsw's name
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self.before("open", path, 0)
        return SimulatedFile(self, name, path, flags)

    def xDelete(self, filename, syncdir):  # noqa: N802
        self.before("delete", filename, 0)
        self._flushed.pop(Path(filename).name, None)
        self._unflushed.pop(Path(filename).name, None)
        super().xDelete(filename, syncdir)

    def before(self, operation: str, path: str, size: int) -> None:
        if self.crash_after is not None and self.image is None:
            if self.crash_after == 0:
                self.take_image()
                self.on_crash()
            self.crash_after -= 1
        if self.failing is not None:
            raise self.failing("injected")

    def written(self, path: str, offset: int, data: bytes | None) -> None:
        """Record a write, or without data a truncation to `offset` bytes."""
        self._unflushed.setdefault(Path(path).name, []).append((offset, data))

    def flush(self, path: str) -> None:
        name = Path(path).name
        _apply(self._flushed.setdefault(name, bytearray()), self._unflushed.pop(name, []))

    def take_image(self) -> None:
        """Record the files that a crash at this moment leaves."""
        self.image = self._read_files(SLOTS_FILE)  # flushed before it is renamed
        if not self.power_cut:
            self.image |= self._read_files(*OUTBOX_FILES)
            return
        for name in sorted({*self._flushed, *self._unflushed} & set(OUTBOX_FILES)):
            content = bytearray(self._flushed.get(name, b""))
            share = self.rng.choice([0.0, 0.5, 1.0])
            writes = self._unflushed.get(name, [])
            _apply(content, [write for write in writes if self.rng.random() < share])
            self.image[name] = bytes(content)

    def _read_files(self, *names: str) -> dict[str, bytes]:
        paths = {name: self.folder / name for name in names}
        return {name: path.read_bytes() for name, path in paths.items() if path.exists()}

    def restore(self) -> None:
        """Restore the image of the crash."""
        assert self.image is not None
        for path in self.folder.glob("outbox.db*"):
            path.unlink()
        for name, content in self.image.items():
            (self.folder / name).write_bytes(content)
        self.image = None
        self.crash_after = None
        self.mark_flushed()

    def mark_flushed(self) -> None:
        """Take the files as they are for flushed."""
        paths = [path for path in self.folder.glob("outbox.db*") if path.name in OUTBOX_FILES]
        self._flushed = {path.name: bytearray(path.read_bytes()) for path in paths}
        self._unflushed.clear()


class SimulatedFile(DiskFile):
    disk: SimulatedDisk

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


def _apply(content: bytearray, writes: Writes) -> None:
    for offset, data in writes:
        if data is None:
            del content[offset:]
        else:
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(data)] = data


def damage_row(path: Path, rng: random.Random) -> Event | None:
    """Flip one bit of an intact event in an outbox; return that event, None where there is none."""
    database = apsw.Connection(str(path))
    query = "SELECT seq, CAST(id AS BLOB), CAST(line AS BLOB), crc FROM event ORDER BY seq"
    rows = [
        (seq, line)
        for seq, id, line, crc in database.execute(query)
        if EventRow(seq, id, "", 0, line, crc).intact() is not None
    ]
    event = None
    if rows:
        seq, line = rng.choice(rows)
        event = codec.decode(line)
        damaged = bytearray(line)
        # The pseudonym stays readable, so that the outbox can tell whose state lost an event.
        user = line.find(b'"user":"')
        places = [place for place in range(len(line)) if not user <= place < user + 41]
        damaged[rng.choice(places)] ^= 1 << rng.randrange(8)
        database.execute("UPDATE event SET line = ? WHERE seq = ?", (bytes(damaged), seq))
    database.close()
    return event
