"""The outbox keeps what it confirmed, numbers everything, and declares what it lost."""

from __future__ import annotations

import os
import threading
import time

import msgspec
import pytest

from sanderling.errors import StorageError
from sanderling.events import schema as wire
from sanderling.events.schema import Loss
from sanderling.outbox.outbox import Outbox
from sanderling.outbox.records import checksum
from sanderling.outbox.write_queue import MAX_QUEUED
from sanderling.runtime.clock import SystemClock
from tests.support.fakes import EventFactory, FakeClock
from tests.support.outboxes import database, n_undeclared, open_outbox, sync, waiting

USER = "c" * 32


def test_numbers_start_at_one_and_never_repeat_across_openings(tmp_path):
    """An install counts 1, 2, 3 and continues after a restart, with the same id and secret."""
    first, make = open_outbox(tmp_path)
    first.put([make.decision(), make.observation()])
    sync(first)
    first.acknowledge([stored.id for stored in first.oldest(10, 10**6)])
    first.close()
    second, _ = open_outbox(tmp_path)
    second.put_durable([make.observation()])
    assert [stored.seq for stored in second.oldest(10, 10**6)] == [3]
    assert second.identity == first.identity
    assert len(first.install) == 32
    assert len(first.identity.secret) == 32
    second.close()


def test_events_come_back_as_they_went_in(tmp_path):
    """A stored event differs from the one put only by its number."""
    outbox, make = open_outbox(tmp_path)
    decision = make.decision()
    outcome = make.outcome(decision)
    outbox.put([decision])
    outbox.put_durable([outcome])
    numbered = [
        msgspec.structs.replace(event, seq=seq) for seq, event in enumerate([decision, outcome], 1)
    ]
    assert waiting(outbox) == numbered
    outbox.close()


def test_a_durable_reward_makes_all_earlier_decisions_durable(tmp_path):
    """When `put_durable` returns, everything queued before is visible to another connection."""
    outbox, make = open_outbox(tmp_path)
    for _ in range(700):
        outbox.put([make.decision()])
    outbox.put_durable([make.observation()])
    assert database(tmp_path).execute("SELECT count(*) FROM event").get == 701
    outbox.close()


def test_the_same_id_is_stored_once(tmp_path):
    """A retry of the same event neither repeats it nor uses up a number."""
    outbox, make = open_outbox(tmp_path)
    event = make.observation()
    outbox.put_durable([event])
    outbox.put_durable([event, make.observation()])
    assert [stored.seq for stored in outbox.oldest(10, 10**6)] == [1, 2]
    outbox.close()


def test_a_state_is_readable_before_and_after_it_is_written(tmp_path):
    """The last state put is returned at once and survives a restart; None if unknown or damaged."""
    outbox, _ = open_outbox(tmp_path)
    outbox.put([], {USER: b"old"})
    outbox.put([], {USER: b"new"})
    assert outbox.state(USER) == b"new"
    sync(outbox)
    assert outbox.state(USER) == b"new"
    assert outbox.state("d" * 32) is None
    outbox.close()
    database(tmp_path).execute("UPDATE state SET value = CAST('nfw' AS BLOB)")
    outbox, _ = open_outbox(tmp_path)
    assert outbox.state(USER) is None
    outbox.close()


def test_state_does_not_wait_for_a_stuck_writer(tmp_path):
    """With the file locked, nine in ten calls of `put` and `state` take less than 2 ms each, and
    `put_durable` raises."""
    outbox, make = open_outbox(tmp_path)
    outbox.put([], {USER: b"value"})
    sync(outbox)
    other = database(tmp_path)
    other.execute("BEGIN IMMEDIATE")
    times = []
    for _ in range(100):
        started = time.perf_counter()
        outbox.put([make.decision()])
        assert outbox.state(USER) == b"value"
        times.append(time.perf_counter() - started)
    assert sorted(times)[90] < 0.002
    with pytest.raises(StorageError, match="not known to be on disk"):
        outbox.put_durable([make.observation()], timeout_s=0.1)
    other.execute("ROLLBACK")
    sync(outbox)
    assert len(waiting(outbox)) == 101
    outbox.close()


def test_batches_respect_their_bounds(tmp_path):
    """A batch ends at its bound of events or bytes, but is never empty while events are stored."""
    outbox, make = open_outbox(tmp_path)
    outbox.put_durable([make.observation() for _ in range(10)])
    size = len(outbox.oldest(1, 10**6)[0].line)
    assert len(outbox.oldest(4, 10**6)) == 4
    assert len(outbox.oldest(10, 3 * size)) == 3
    assert len(outbox.oldest(10, 1)) == 1
    outbox.close()


def test_counters_add_up(tmp_path):
    """Stored events are pending, acknowledged or lost, and each loss is an event of its own."""
    outbox, make = open_outbox(tmp_path)
    outbox.put_durable([make.observation() for _ in range(10)])
    batch = outbox.oldest(10, 10**6)
    outbox.acknowledge([stored.id for stored in batch[:4]] + ["f" * 32])
    outbox.reject(batch[4].id, "rejected")
    counters = outbox.counters()
    assert (counters.stored, counters.acknowledged) == (10, 4)
    assert counters.lost == {"rejected": 1}
    assert counters.pending == len(outbox.oldest(100, 10**6)) == 6
    outbox.close()


def test_a_rejected_event_is_declared(tmp_path):
    """Each rejected event is one declared loss of its kind, and its reason is cut to a length."""
    outbox, make = open_outbox(tmp_path)
    outbox.put_durable([make.decision() for _ in range(120)])
    for stored in outbox.oldest(120, 10**6):
        outbox.reject(stored.id, "because " * 2000)
    outbox.reject("f" * 32, "an event that is not there")
    losses = waiting(outbox)
    assert sum(loss.decisions for loss in losses) == 120
    assert {len(loss.reason) for loss in losses} == {512}
    assert n_undeclared(losses) == 0
    outbox.close()


@pytest.mark.parametrize("damage", ['"observations":9', "}}", "{"])
def test_a_damaged_declaration_is_removed(tmp_path, damage):
    """A damaged declaration of a loss is not trusted, readable or not, and its own loss is
    declared."""
    outbox, make = open_outbox(tmp_path)
    outbox.put_durable([make.observation(), make.observation()])
    outbox.reject(outbox.oldest(1, 10**6)[0].id, "rejected")
    outbox.close()
    replaced = "replace(CAST(line AS TEXT), '\"observations\":1', ?)"
    rot = f"UPDATE event SET line = CAST({replaced} AS BLOB) WHERE seq = 3"
    database(tmp_path).execute(rot, (damage,))
    outbox, _ = open_outbox(tmp_path)
    assert [stored.seq for stored in outbox.oldest(10, 10**6)] == [2]
    (loss,) = [event for event in waiting(outbox) if isinstance(event, Loss)]
    assert (loss.seq, loss.reason, loss.observations, loss.lost_seqs) == (4, "corrupt", 0, [3])
    outbox.close()


def test_a_damaged_row_is_removed_and_declared(tmp_path):
    """A row with a flipped bit is never sent: it is removed, and one event is declared lost."""
    outbox, make = open_outbox(tmp_path)
    outbox.put_durable([make.decision(), make.observation()])
    outbox.close()
    database(tmp_path).execute(
        "UPDATE event SET line = CAST(replace(line, 'red', 'rad') AS BLOB) WHERE seq = 1"
    )
    outbox, _ = open_outbox(tmp_path)
    assert [stored.seq for stored in outbox.oldest(10, 10**6)] == [2]
    events = waiting(outbox)
    assert [(loss.reason, loss.decisions) for loss in events if isinstance(loss, Loss)] == [
        ("corrupt", 1)
    ]
    assert n_undeclared(events) == 0
    outbox.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "record"])
def test_a_damaged_file_is_moved_aside(tmp_path, damage):
    """A damaged file is kept beside; a new install id starts with one declared reset."""
    outbox, make = open_outbox(tmp_path)
    outbox.put_durable([make.decision() for _ in range(50)])
    outbox.close()
    path = tmp_path / "outbox.db"
    if damage == "garbage":
        path.write_bytes(b"\x00" + os.urandom(9000))
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:8192])
    else:
        database(tmp_path).execute("UPDATE meta SET seq = 7")
    reopened, make = open_outbox(tmp_path)
    assert reopened.install != outbox.install
    assert [(event.reason, event.seq) for event in waiting(reopened)] == [("outbox_reset", 1)]
    assert reopened.counters().lost == {"outbox_reset": 1}
    assert (tmp_path / "corrupt.db").exists()
    reopened.put_durable([make.observation()])
    assert [event.seq for event in waiting(reopened)] == [1, 2]
    reopened.close()


def test_a_later_schema_is_refused_and_untouched(tmp_path):
    """A file of a later version is not opened, not moved and not changed."""
    connection = database(tmp_path)
    connection.execute("CREATE TABLE future (x); PRAGMA user_version = 2")
    connection.close()
    before = (tmp_path / "outbox.db").read_bytes()
    with pytest.raises(StorageError, match="expected schema 1, found 2"):
        open_outbox(tmp_path)
    assert (tmp_path / "outbox.db").read_bytes() == before


def test_one_engine_per_folder(tmp_path):
    """A second outbox on the same folder is refused until the first is closed."""
    outbox, _ = open_outbox(tmp_path)
    with pytest.raises(StorageError, match="one engine per state folder"):
        open_outbox(tmp_path)
    outbox.close()
    open_outbox(tmp_path)[0].close()


def test_an_unusable_folder_is_a_storage_error(tmp_path):
    """A file in place of the folder raises `StorageError` with its path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        open_outbox(tmp_path / "file")


def test_the_queue_in_memory_is_bounded(tmp_path):
    """While the disk is stuck the queue stops at its bound; what did not fit is counted and
    declared."""
    outbox, make = open_outbox(tmp_path)
    other = database(tmp_path)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(MAX_QUEUED + 25):
        outbox.put([make.observation()])
    assert outbox.counters().queued == MAX_QUEUED
    assert outbox.counters().lost == {"queue_full": 25}
    other.execute("ROLLBACK")
    sync(outbox)
    events = waiting(outbox)
    assert sum(event.observations for event in events if isinstance(event, Loss)) == 25
    assert n_undeclared(events) == 0
    outbox.close()


def test_states_without_events_are_bounded_in_the_queue(tmp_path):
    """While the disk is stuck the queue takes no more requests than its bound, states alone
    included."""
    outbox, _ = open_outbox(tmp_path)
    other = database(tmp_path)
    other.execute("BEGIN IMMEDIATE")
    for number in range(MAX_QUEUED + 25):
        outbox.put([], {f"{number}": b"state"})
    queued = [number for number in range(MAX_QUEUED + 25) if outbox.state(f"{number}")]
    assert queued == list(range(MAX_QUEUED))
    other.execute("ROLLBACK")
    sync(outbox)
    assert outbox.state("1") == b"state"
    outbox.close()


def test_an_event_that_cannot_be_encoded_blocks_nothing(tmp_path):
    """An oversize event is refused and declared, and the events around it are stored."""
    outbox, make = open_outbox(tmp_path)
    huge = make.decision(context="x" * wire.MAX_LINE)
    outbox.put([make.observation()])
    with pytest.raises(StorageError, match="at most"):
        outbox.put_durable([huge])
    outbox.put_durable([make.observation()])
    events = waiting(outbox)
    assert [event.seq for event in events] == [1, 3, 4]
    assert n_undeclared(events) == 0
    outbox.close()


def test_closing_stores_what_is_queued(tmp_path):
    """After `close` the queue is on disk; later puts are counted as lost, and only `put_durable`
    raises."""
    outbox, make = open_outbox(tmp_path)
    for _ in range(1000):
        outbox.put([make.decision()])
    outbox.close()
    outbox.put([make.decision()])
    assert outbox.counters().lost == {"closed": 1}
    with pytest.raises(StorageError, match="closed"):
        sync(outbox)
    reopened, _ = open_outbox(tmp_path)
    assert reopened.counters().pending == 1000
    reopened.close()


def test_many_threads_lose_nothing(tmp_path):
    """Eight threads put at once: every event is stored once, and no number is missing."""
    outbox, make = open_outbox(tmp_path)
    events = [[make.observation() for _ in range(200)] for _ in range(8)]

    def work(mine: list[wire.Event]) -> None:
        for number, event in enumerate(mine):
            if number % 20 == 0:
                outbox.put_durable([event])
            else:
                outbox.put([event])

    threads = [threading.Thread(target=work, args=(mine,)) for mine in events]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sync(outbox)
    assert [event.seq for event in waiting(outbox)] == list(range(1, 1601))
    outbox.close()


def test_put_is_cheap(tmp_path):
    """The median `put` takes less than 50 microseconds: a recommendation never waits for the
    disk."""
    outbox = Outbox(tmp_path, clock=SystemClock())
    make = EventFactory(outbox.install)
    times = []
    for event in [make.decision() for _ in range(1000)]:
        start = time.perf_counter_ns()
        outbox.put([event], {USER: b"x" * 1024})
        times.append(time.perf_counter_ns() - start)
    assert sorted(times)[500] < 50_000
    outbox.close()


def test_the_checksum_covers_the_id():
    """A row with an altered id fails its checksum just like one with an altered line."""
    assert checksum("a" * 32, b"line") != checksum("b" * 32, b"line")


def test_without_a_thread_work_writes_what_is_queued(tmp_path):
    """Without a thread `work` writes what is queued; a durable reward and closing write at once."""
    threads = set(threading.enumerate())
    outbox = Outbox(tmp_path, clock=FakeClock(), threaded=False)
    make = EventFactory(outbox.install)
    outbox.put([make.observation()])
    assert (outbox.counters().queued, outbox.counters().pending) == (1, 0)
    outbox.work()
    outbox.put([make.observation()])
    outbox.put_durable([make.observation()])
    assert (outbox.counters().queued, outbox.counters().pending) == (0, 3)
    outbox.put([make.observation()])
    assert set(threading.enumerate()) <= threads
    outbox.close()
    reopened = Outbox(tmp_path, clock=FakeClock(), threaded=False)
    assert len(reopened.oldest(10, 2**20)) == 4
    reopened.close()
