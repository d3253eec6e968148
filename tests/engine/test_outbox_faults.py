"""A disk that fails or fills up: nothing confirmed is lost, the app sees no error, and the outbox
recovers."""

from __future__ import annotations

import shutil
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest

from sanderling.errors import StorageError
from sanderling.events import codec
from sanderling.events.schema import Event
from sanderling.outbox.ballast import BALLAST_BYTES
from sanderling.outbox.outbox import Outbox
from tests.support.disks import FaultyDisk, SmallDisk
from tests.support.fakes import EventFactory, FakeClock
from tests.support.waiting import wait_until

FOR_EVER = 10**9
FAULTS = [
    pytest.param(apsw.IOError, 1, id="io error once"),
    pytest.param(apsw.FullError, 1, id="full once"),
    pytest.param(apsw.IOError, FOR_EVER, id="io error for ever"),
    pytest.param(apsw.FullError, FOR_EVER, id="full for ever"),
]


def ids(outbox: Outbox) -> set[str]:
    return {stored.id for stored in outbox.oldest(10**6, 2**40)}


def use(folder: Path, disk: FaultyDisk, patience_s: float) -> tuple[set[str], set[str]]:
    """Record, send and acknowledge for a while, then repair the disk and record once more.

    Return the ids confirmed to be durable, and those acknowledged. Only `StorageError` may be
    raised.
    """
    confirmed: set[str] = set()
    acknowledged: set[str] = set()
    try:
        outbox = Outbox(folder, clock=FakeClock())
    except StorageError:
        return confirmed, acknowledged
    make = EventFactory(outbox.install)
    for _ in range(4):
        decision = make.decision()
        outbox.put([decision], {"c" * 32: b"state"})
        outcome = make.outcome(decision)
        with suppress(StorageError):
            outbox.put_durable([outcome], timeout_s=patience_s)
            confirmed |= {decision.id, outcome.id}
        with suppress(StorageError):
            batch = [stored.id for stored in outbox.oldest(1, 10**6)]
            acknowledged |= set(batch)
            outbox.acknowledge(batch)
    disk.last = 0
    last = make.observation()
    outbox.put_durable([last])
    outbox.close()
    return confirmed | {last.id}, acknowledged


def sweep(folder: Path, error: type[apsw.Error], length: int, step: int) -> int:
    """Fail every `step`th operation in turn, or all from there on; return how many there are."""
    with FaultyDisk() as disk:
        use(folder / "count", disk, 5)
    for first in range(0, disk.operations, step):
        own = folder / str(first)
        with FaultyDisk(first, first + length, error) as faulty:
            confirmed, acknowledged = use(own, faulty, 5 if length == 1 else 0.2)
        outbox = Outbox(own, clock=FakeClock())
        assert confirmed <= ids(outbox) | acknowledged, first
        assert outbox.counters().lost == {}, first
        outbox.close()
    return disk.operations


@pytest.mark.parametrize(("error", "length"), FAULTS)
def test_storage_errors_are_survived(tmp_path, error, length):
    """Failing opens, writes, syncs and truncates in turn loses no confirmed event, and the outbox
    recovers."""
    assert sweep(tmp_path, error, length, 5 if length == 1 else 19) > 40


@pytest.mark.soak
@pytest.mark.parametrize(("error", "length"), FAULTS)
def test_every_single_storage_error_is_survived(tmp_path, error, length):
    """The same for each single operation."""
    print(f"{sweep(tmp_path, error, length, 1)} operations, each failed, nothing lost")


def garbage(folder: Path) -> Path:
    """A folder in which the outbox file holds garbage."""
    folder.mkdir()
    (folder / "outbox.db").write_bytes(b"garbage" * 3000)
    return folder


def open_closed(folder: Path) -> list[Event]:
    """Open and close an outbox; return the events stored in it."""
    with closing(Outbox(folder, clock=FakeClock(), threaded=False)) as outbox:
        return [codec.decode(stored.line) for stored in outbox.oldest(10, 10**6)]


@pytest.mark.parametrize(("error", "length"), FAULTS)
def test_a_damaged_file_on_a_failing_disk_is_survived(tmp_path, error, length):
    """Whichever operation fails while a damaged file is moved aside, only `StorageError` is
    raised, the folder is released, and the reset is declared once."""
    with FaultyDisk() as disk:
        open_closed(garbage(tmp_path / "count"))
    failed = 0
    for first in range(disk.operations):
        folder = garbage(tmp_path / str(first))
        with FaultyDisk(first, first + length, error):
            try:
                open_closed(folder)
            except StorageError:
                failed += 1
        assert [(event.reason, event.seq) for event in open_closed(folder)] == [
            ("outbox_reset", 1)
        ], first
    assert failed > 30


def test_a_dead_disk_neither_raises_nor_hangs(tmp_path):
    """While every write fails `put` returns and `put_durable` raises `StorageError`; afterwards
    everything is stored."""
    with FaultyDisk() as disk:
        outbox = Outbox(tmp_path, clock=FakeClock())
        make = EventFactory(outbox.install)
        disk.last = FOR_EVER
        for event in [make.decision() for _ in range(30)]:
            outbox.put([event])
        with pytest.raises(StorageError):
            outbox.put_durable([make.observation()], timeout_s=0.2)
        assert wait_until(lambda: outbox.counters().failed_commits > 0)
        disk.last = 0
        outbox.put_durable([])
        assert len(ids(outbox)) == 31
        outbox.close()


def fill(outbox: Outbox, make: EventFactory) -> None:
    for _ in range(1000):
        outbox.put_durable([make.observation() for _ in range(50)], timeout_s=0.5)


def test_a_full_disk_can_be_drained(tmp_path, monkeypatch):
    """On a full disk events are acknowledged with the ballast and in small steps; then new ones
    are stored."""
    with SmallDisk(tmp_path / "ballast", BALLAST_BYTES) as disk:
        outbox = Outbox(tmp_path, clock=FakeClock())
        make = EventFactory(outbox.install)
        outbox.put_durable([make.decision() for _ in range(1500)])
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
        disk.room = sum(disk.sizes.values())
        with pytest.raises(StorageError):
            fill(outbox, make)
        stored = outbox.counters().pending
        for _ in range(100):
            with suppress(
                StorageError
            ):  # apsw raises here for a checkpoint that failed behind a commit that did not
                outbox.acknowledge([stored.id for stored in outbox.oldest(200, 10**6)])
            if outbox.counters().pending < stored // 4:
                break
        outbox.put_durable([make.observation()], timeout_s=10)
        seen = [codec.decode(stored.line).seq for stored in outbox.oldest(10**6, 2**40)]
        assert seen == list(range(seen[0], seen[0] + len(seen)))
        outbox.close()
