"""Files that are truncated, damaged, stale, replaced or missing: nothing wrong is ever sent."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from sanderling.errors import StorageError
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.events.schema import Loss
from sanderling.outbox.outbox import Outbox
from sanderling.runtime.clock import SystemClock
from tests.support.fakes import EventFactory, FakeClock

USER = "c" * 32
SCHEMA_VERSION = range(60, 64)  # the bytes of SQLite's header that hold it


def open_outbox(folder: Path) -> tuple[Outbox, EventFactory]:
    outbox = Outbox(folder, clock=FakeClock())
    return outbox, EventFactory(outbox.install)


def make_folder(folder: Path, decisions: int = 60) -> dict[str, bytes]:
    """Fill a new outbox with decisions and one state, and close it; return the lines by id."""
    outbox, make = open_outbox(folder)
    outbox.put_durable([make.decision() for _ in range(decisions)], states={USER: b"state" * 40})
    true = {stored.id: stored.line for stored in outbox.oldest(1000, 2**30)}
    outbox.close()
    return true


def check_recovered(folder: Path, true: dict[str, bytes]) -> None:
    """Open what may be damaged: only what was put is offered, the state is right or None, and
    new events are stored."""
    outbox, make = open_outbox(folder)
    for stored in outbox.oldest(1000, 2**30):
        event = codec.decode(stored.line)
        assert isinstance(event, Loss) or true[stored.id] == stored.line
    assert outbox.state(USER) in (None, b"state" * 40)
    new = make.observation(id="e" * 32)
    outbox.put_durable([new])
    assert new.id in [stored.id for stored in outbox.oldest(1000, 2**30)]
    outbox.close()


def damaged(folder: Path, data: bytes) -> Path:
    folder.mkdir()
    (folder / "outbox.db").write_bytes(data)
    return folder


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def flip_bits(folder: Path, flips: int) -> int:
    """Flip one random bit of a file, `flips` times; return how often that made its schema a
    later version's."""
    true = make_folder(folder / "source")
    data = (folder / "source" / "outbox.db").read_bytes()
    rng, later = random.Random(4), 0
    for number in range(flips):
        bit = rng.randrange(8 * len(data))
        own = damaged(folder / str(number), flipped(data, bit))
        if bit // 8 in SCHEMA_VERSION:
            with pytest.raises(StorageError, match="of a later version"):
                open_outbox(own)
            later += 1
        else:
            check_recovered(own, true)
        shutil.rmtree(own)
    return later


def test_a_flipped_bit_is_never_sent(tmp_path):
    """After any of 100 single flipped bits the outbox opens, offers only what was put, and
    stores again."""
    flip_bits(tmp_path, 100)


@pytest.mark.soak
def test_a_thousand_flipped_bits_are_never_sent(tmp_path):
    """The same for 1,000 bits."""
    print(
        f"1,000 flips, {flip_bits(tmp_path, 1000)} refused as a later schema, no wrong row offered"
    )


def test_a_truncated_file_opens(tmp_path):
    """Truncated at each 512 bytes the file opens or is moved aside, and nothing wrong is
    offered."""
    true = make_folder(tmp_path / "source", 8)
    data = (tmp_path / "source" / "outbox.db").read_bytes()
    for size in range(0, len(data), 512):
        check_recovered(damaged(tmp_path / str(size), data[:size]), true)


def test_a_zero_filled_tail_opens(tmp_path):
    """A file whose tail the file system filled with zeros opens or is moved aside."""
    true = make_folder(tmp_path / "source", 40)
    data = (tmp_path / "source" / "outbox.db").read_bytes()
    for kept in range(0, len(data), 4096):
        check_recovered(damaged(tmp_path / str(kept), data[:kept] + bytes(len(data) - kept)), true)


def running_copy(folder: Path, decisions: int) -> tuple[Path, dict[str, bytes]]:
    """Return a copy of a running outbox's files, its write-ahead log not yet folded into the
    file."""
    outbox, make = open_outbox(folder)
    outbox.put_durable([make.decision() for _ in range(decisions)])
    true = {stored.id: stored.line for stored in outbox.oldest(1000, 2**30)}
    copy = folder.with_name(folder.name + "-copy")
    copy.mkdir()
    for name in ("outbox.db", "outbox.db-wal"):
        shutil.copy(folder / name, copy / name)
    outbox.close()
    return copy, true


@pytest.mark.parametrize("wal", ["missing", "empty", "half", "garbage", "of another outbox"])
def test_a_wrong_write_ahead_log_is_never_sent(tmp_path, wal):
    """Whatever is in place of the log, the outbox opens and offers nothing that was not put."""
    folder, true = running_copy(tmp_path / "one", 30)
    other, others = running_copy(tmp_path / "other", 45)
    log = folder / "outbox.db-wal"
    data = log.read_bytes()
    log.unlink()
    if wal == "of another outbox":
        shutil.copy(other / "outbox.db-wal", log)
    elif wal != "missing":
        log.write_bytes(
            {
                "empty": b"",
                "half": data[: len(data) // 2],
                "garbage": random.Random(1).randbytes(9000),
            }[wal]
        )
    check_recovered(folder, others if wal == "of another outbox" else true)


def test_the_log_of_a_damaged_file_is_not_replayed(tmp_path):
    """Killed between moving the damaged file and its log, the next opening still starts empty."""
    folder, _ = running_copy(tmp_path / "one", 30)
    (folder / "outbox.db").unlink()
    outbox, _ = open_outbox(folder)
    assert outbox.counters().pending == 0
    outbox.close()


def test_a_damaged_file_is_moved_aside_with_its_log(tmp_path):
    """The file is moved aside, and neither its log nor its index stays beside the new one."""
    folder = damaged(tmp_path / "one", b"garbage" * 1000)
    for suffix in ("-wal", "-shm"):
        (folder / f"outbox.db{suffix}").write_bytes(b"garbage" * 1000)
    outbox, _ = open_outbox(folder)
    assert (folder / "corrupt.db").read_bytes() == b"garbage" * 1000
    assert not any(b"garbage" in path.read_bytes() for path in folder.glob("outbox.db*"))
    outbox.close()


def test_a_damaged_file_counts_towards_the_limit_and_is_deleted_first(tmp_path):
    """A file that was moved aside counts towards the limit, and is deleted before any event."""
    folder = damaged(tmp_path / "one", b"garbage" * 30_000)
    outbox = Outbox(folder, limit_bytes=2**18, clock=FakeClock(), threaded=False)
    make = EventFactory(outbox.install, 99)
    for _ in range(10):
        outbox.put_durable([make.decision() for _ in range(20)])
    assert not (folder / "corrupt.db").exists()
    assert outbox.counters().pending == 201
    outbox.close()


def test_a_folder_in_place_of_the_file_is_an_error(tmp_path):
    """What can never be opened as a file is left alone, and the error names the state folder."""
    (tmp_path / "outbox.db").mkdir()
    with pytest.raises(StorageError, match="expected a usable outbox in"):
        open_outbox(tmp_path)
    assert (tmp_path / "outbox.db").is_dir()


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        ("UPDATE event SET line = CAST(line AS TEXT) WHERE seq = 1", [1, 2]),
        ("UPDATE event SET id = CAST(x'ff' AS TEXT) WHERE seq = 1", [2, 3]),
        ("UPDATE event SET type = CAST(x'ff' AS TEXT), crc = 0 WHERE seq = 1", [2, 3]),
        ("UPDATE event SET crc = 'text' WHERE seq = 1", [2, 3]),
        ("UPDATE event SET line = 7 WHERE seq = 1", [2, 3]),
    ],
)
def test_a_value_of_another_type_blocks_nothing(tmp_path, damage, left):
    """A flipped bit can turn bytes into text: the row is read as bytes or set aside, and
    uploading continues."""
    make_folder(tmp_path, 2)
    apsw.Connection(str(tmp_path / "outbox.db")).execute(damage)
    outbox, _ = open_outbox(tmp_path)
    for _ in range(2):
        offered = [stored.seq for stored in outbox.oldest(10, 10**6)]
    assert offered == left
    outbox.close()


@pytest.mark.parametrize("value", ["CAST(x'ff' AS TEXT)", "7", "x''", "'text'"])
def test_a_damaged_state_is_none(tmp_path, value):
    """A state that is not the bytes that were put reads as None and raises nothing."""
    make_folder(tmp_path)
    apsw.Connection(str(tmp_path / "outbox.db")).execute(f"UPDATE state SET value = {value}")
    outbox, _ = open_outbox(tmp_path)
    assert outbox.state(USER) is None
    outbox.close()


def test_a_header_that_is_not_text_is_a_reset(tmp_path):
    """An install id that cannot be read as text is damage like any other, not an error at every
    start."""
    make_folder(tmp_path)
    apsw.Connection(str(tmp_path / "outbox.db")).execute(
        "UPDATE meta SET install = CAST(x'ff' AS TEXT)"
    )
    outbox, _ = open_outbox(tmp_path)
    assert outbox.counters().lost == {"outbox_reset": 1}
    outbox.close()


def test_an_event_with_a_used_number_is_refused(tmp_path):
    """When the next number is already in the file, the event is refused and not taken for a
    stored one."""
    outbox, make = open_outbox(tmp_path)
    intruder = apsw.Connection(str(tmp_path / "outbox.db"))
    intruder.execute("INSERT INTO event VALUES (1, 'x', 'decision', NULL, 0, x'00', 0)")
    with pytest.raises(StorageError):
        outbox.put_durable([make.observation()], timeout_s=0.2)
    outbox.close()


def remove_file(folder: Path) -> None:
    (folder / "outbox.db").unlink()


def replace_file(folder: Path) -> None:
    shutil.copy(folder / "outbox.db", folder / "copy")
    (folder / "copy").replace(folder / "outbox.db")


@pytest.mark.parametrize("remove", [shutil.rmtree, remove_file, replace_file])
def test_an_outbox_whose_file_was_removed_accepts_no_rewards(
    tmp_path, remove: Callable[[Path], None]
):
    """With its file removed or replaced the outbox accepts no rewards; the next one starts
    empty."""
    outbox, make = open_outbox(tmp_path / "state")
    outbox.put_durable([make.observation()])
    remove(tmp_path / "state")
    outbox.put([make.decision()])
    with pytest.raises(StorageError):
        outbox.put_durable([make.observation()], timeout_s=0.2)
    outbox.close()
    reopened, make = open_outbox(tmp_path / "state")
    reopened.put_durable([make.observation()])
    reopened.close()


def test_a_restored_backup_repeats_numbers_but_no_ids(tmp_path):
    """After a restored disk image numbers repeat, but ids are new: nothing is taken for a
    duplicate."""
    make_folder(tmp_path / "one", 3)
    shutil.copytree(tmp_path / "one", tmp_path / "backup")
    seen = []
    for folder in (tmp_path / "one", tmp_path / "backup"):
        outbox = Outbox(folder, clock=SystemClock())
        with pytest.raises(StorageError, match="at most"):
            outbox.put_durable(
                [EventFactory(outbox.install, 99).observation(kind="x" * wire.MAX_LINE)]
            )
        seen.append({stored.id for stored in outbox.oldest(10, 10**6)})
        outbox.close()
    assert len(seen[0] & seen[1]) == 3
    assert len(seen[0] | seen[1]) == 5


def test_a_failed_opening_releases_the_folder(tmp_path):
    """A folder whose outbox was refused can be opened by the same process once it is repaired."""
    connection = apsw.Connection(str(tmp_path / "outbox.db"))
    connection.execute("PRAGMA user_version = 2")
    with pytest.raises(StorageError, match="found 2") as refused:
        open_outbox(tmp_path)
    connection.execute("PRAGMA user_version = 0")
    connection.close()
    open_outbox(tmp_path)[0].close()
    assert refused


def test_an_empty_ballast_is_filled_again(tmp_path):
    """A ballast that a power cut left empty is filled again, with a quarter of the free space at
    most."""
    make_folder(tmp_path)
    size = (tmp_path / "ballast").stat().st_size
    (tmp_path / "ballast").write_bytes(b"")
    make_folder(tmp_path)
    assert 0 < size == (tmp_path / "ballast").stat().st_size


def test_damaged_rows_do_not_block_shedding(tmp_path):
    """When room must be made, unreadable rows are removed and declared, and others still shed."""
    outbox = Outbox(tmp_path, limit_bytes=256 * 1024, clock=FakeClock())
    make = EventFactory(outbox.install)
    outbox.put_durable([make.decision() for _ in range(10)])
    apsw.Connection(str(tmp_path / "outbox.db")).execute("UPDATE event SET crc = 0")
    for _ in range(40):
        outbox.put_durable([make.decision() for _ in range(40)])
    events = [codec.decode(stored.line) for stored in outbox.oldest(10**4, 2**30)]
    declared = sum(event.decisions for event in events if isinstance(event, Loss))
    assert max(event.seq for event in events) == len(events) + declared
    outbox.close()
