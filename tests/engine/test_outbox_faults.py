"""A disk that fails or fills up: nothing promised is lost, nothing raises into the host, and the outbox heals."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest

from sanderling.contract import events as wire
from sanderling.errors import StorageError
from sanderling.outbox import Outbox
from sanderling.store import BALLAST_BYTES
from tests.fakes import EventFactory, FakeClock

BASE = apsw.vfs_names()[0]


class Disk(apsw.VFS):
    """A file system whose every operation on a file asks `fault`, and whose files together hold `room` bytes."""

    def __init__(self, name: str) -> None:
        super().__init__(name, BASE)
        self.name_ = name
        self.failing: set[int] | None = set()
        self.operations = itertools.count()
        self.room = 2**40
        self.ballast: Path | None = None
        self.sizes: dict[str, int] = {}

    def xOpen(self, name, flags):  # noqa: N802 - apsw's name
        return DiskFile(self, name, flags)

    def capacity(self) -> int:
        """Return the bytes for all files: more when the ballast has been given up."""
        given_up = self.ballast is not None and not self.ballast.exists()
        return self.room + (BALLAST_BYTES if given_up else 0)

    def fault(self) -> None:
        if self.failing is None or next(self.operations) in self.failing:
            raise apsw.IOError("injected")


class DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name, flags) -> None:
        super().__init__(BASE, name, flags)
        self.disk = disk
        self.path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)

    def xWrite(self, data, offset):  # noqa: N802
        self.disk.fault()
        size = max(self.disk.sizes.get(self.path, 0), offset + len(data))
        if sum(self.disk.sizes.values()) - self.disk.sizes.get(self.path, 0) + size > self.disk.capacity():
            raise apsw.FullError("injected")
        self.disk.sizes[self.path] = size
        super().xWrite(data, offset)

    def xSync(self, flags):  # noqa: N802
        self.disk.fault()
        super().xSync(flags)

    def xTruncate(self, size):  # noqa: N802
        self.disk.fault()
        self.disk.sizes[self.path] = size
        super().xTruncate(size)


names = itertools.count()


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk(f"faulty-{next(names)}")
    apsw.set_default_vfs(disk.name_)
    yield disk
    apsw.set_default_vfs(BASE)


def ids(outbox: Outbox) -> list[str]:
    return [pending.id for pending in outbox.oldest(10**6, 2**40)]


def use(folder: Path) -> tuple[list[str], list[str]]:
    """Record, send and acknowledge for a while; return the ids promised to be durable, and those acknowledged."""
    promised: list[str] = []
    acknowledged: list[str] = []
    try:
        outbox = Outbox(folder, clock=FakeClock())
    except StorageError:
        return promised, acknowledged
    make = EventFactory(outbox.install)
    for _ in range(4):
        decision = make.decision()
        outbox.put([decision], {"c" * 32: b"state"})
        outcome = make.outcome(decision)
        try:
            outbox.put_durable([outcome], timeout_s=5)
            promised += [decision.id, outcome.id]
        except StorageError:
            pass
        try:
            batch = [pending.id for pending in outbox.oldest(1, 10**6)]
            acknowledged += batch
            outbox.acknowledge(batch)
        except StorageError:
            pass
    outbox.close()
    return promised, acknowledged


def test_any_single_storage_error_is_survived(disk, tmp_path):
    """Failing each write, sync or truncate in turn loses no promised event and raises nothing but StorageError (P5)."""
    use(tmp_path / "count")
    operations = next(disk.operations)
    assert operations > 40
    for failing in range(operations):
        disk.failing, disk.operations = {failing}, itertools.count()
        folder = tmp_path / str(failing)
        promised, acknowledged = use(folder)
        disk.failing = set()
        outbox = Outbox(folder, clock=FakeClock())
        assert set(promised) <= set(ids(outbox)) | set(acknowledged)
        outbox.close()


def test_a_dead_disk_neither_raises_nor_hangs_and_heals(disk, tmp_path):
    """While every write fails put returns and put_durable raises StorageError; afterwards all of it is stored."""
    outbox = Outbox(tmp_path, clock=FakeClock())
    make = EventFactory(outbox.install)
    disk.failing = None
    put = [make.decision() for _ in range(30)]
    for event in put:
        outbox.put([event])
    with pytest.raises(StorageError):
        outbox.put_durable([make.observation()], timeout_s=0.2)
    assert outbox.counters().failed_commits > 0
    disk.failing = set()
    outbox.put_durable([])
    assert len(ids(outbox)) == 31
    outbox.close()


def test_a_full_disk_can_be_drained(disk, tmp_path, monkeypatch):
    """On a full disk acknowledging works by the ballast and small steps; then new events are stored again (P6)."""
    outbox = Outbox(tmp_path, clock=FakeClock())
    make = EventFactory(outbox.install)
    outbox.put_durable([make.decision() for _ in range(1500)])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    disk.room, disk.ballast = sum(disk.sizes.values()), tmp_path / "ballast"
    with pytest.raises(StorageError):
        outbox.put_durable([make.observation() for _ in range(5000)], timeout_s=0.5)
    stored = outbox.counters().pending
    for _ in range(100):
        with suppress(StorageError):  # apsw raises here for a checkpoint that failed behind a commit that did not
            outbox.acknowledge([pending.id for pending in outbox.oldest(200, 10**6)])
        if outbox.counters().pending < stored // 4:
            break
    outbox.put_durable([make.observation()], timeout_s=10)
    seen = [wire.decode(pending.line).seq for pending in outbox.oldest(10**6, 2**40)]
    assert seen == list(range(seen[0], seen[0] + len(seen)))
    outbox.close()
