"""The outbox keeps what it promised, numbers everything, and says what it lost."""

from __future__ import annotations

import math
import os
import threading
import time
from pathlib import Path

import apsw
import msgspec
import pytest

from sanderling.errors import StorageError
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.events.schema import Decision, Loss, Observation, Outcome
from sanderling.outbox.event_store import checksum
from sanderling.outbox.outbox import QUEUE_EVENTS, Outbox
from sanderling.outbox.shedding import make_room, survives
from sanderling.runtime.clock import SystemClock
from tests.support.fakes import EventFactory, FakeClock

USER = "c" * 32
LIMIT = 2 * 2**20


def open_outbox(folder: Path, **options) -> tuple[Outbox, EventFactory]:
    outbox = Outbox(folder, clock=FakeClock(), **options)
    return outbox, EventFactory(outbox.install)


def sync(outbox: Outbox) -> None:
    outbox.put_durable([])


def waiting(outbox: Outbox) -> list[wire.Event]:
    return [codec.decode(pending.line) for pending in outbox.oldest(10**6, 2**40)]


def gap(events: list[wire.Event]) -> int:
    declared = sum(e.decisions + e.outcomes + e.observations for e in events if isinstance(e, Loss))
    return max(e.seq for e in events) - len(events) - declared


def database(folder: Path) -> apsw.Connection:
    return apsw.Connection(str(folder / "outbox.db"))


def test_numbers_start_at_one_and_never_repeat_across_openings(tmp_path):
    """Every install counts 1, 2, 3 and goes on counting after a restart, under the same install and secret."""
    first, make = open_outbox(tmp_path)
    first.put([make.decision(), make.observation()])
    sync(first)
    first.acknowledge([pending.id for pending in first.oldest(10, 10**6)])
    first.close()
    second, _ = open_outbox(tmp_path)
    second.put_durable([make.observation()])
    assert [pending.seq for pending in second.oldest(10, 10**6)] == [3]
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


def test_a_reward_carries_all_earlier_decisions(tmp_path):
    """When put_durable returns, everything queued before it is in the file, read by another connection."""
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
    assert [pending.seq for pending in outbox.oldest(10, 10**6)] == [1, 2]
    outbox.close()


def test_state_is_seen_before_and_after_it_is_written(tmp_path):
    """The last state put is returned at once, survives a restart, and is None for the unknown or the damaged."""
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
    """While another process holds the write lock, nine in ten calls of put and state take less than 2 ms each, and
    put_durable says so."""
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


def test_batches_keep_to_their_bounds(tmp_path):
    """A batch ends at its bound of events or of bytes, but is never empty while something waits."""
    outbox, make = open_outbox(tmp_path)
    outbox.put_durable([make.observation() for _ in range(10)])
    size = len(outbox.oldest(1, 10**6)[0].line)
    assert len(outbox.oldest(4, 10**6)) == 4
    assert len(outbox.oldest(10, 3 * size)) == 3
    assert len(outbox.oldest(10, 1)) == 1
    outbox.close()


def test_counters_add_up(tmp_path):
    """Stored events are pending, acknowledged or quarantined, and the bytes are those of the lines."""
    outbox, make = open_outbox(tmp_path)
    outbox.put_durable([make.observation() for _ in range(10)])
    batch = outbox.oldest(10, 10**6)
    outbox.acknowledge([pending.id for pending in batch[:4]] + ["f" * 32])
    outbox.quarantine(batch[4].id, "rejected")
    counters = outbox.counters()
    assert (counters.stored, counters.acknowledged, counters.quarantined) == (10, 4, 1)
    assert counters.lost == {"rejected": 1}
    left = outbox.oldest(100, 10**6)
    assert counters.pending == len(left) == 6
    assert counters.bytes == sum(len(pending.line) for pending in left)
    outbox.close()


def test_quarantine_is_declared_and_bounded(tmp_path):
    """Each quarantined event is one declared loss of its kind, and only the last hundred are kept."""
    outbox, make = open_outbox(tmp_path)
    outbox.put_durable([make.decision() for _ in range(120)])
    ids = [pending.id for pending in outbox.oldest(120, 10**6)]
    for id in ids:
        outbox.quarantine(id, "rejected")
    losses = waiting(outbox)
    assert sum(loss.decisions for loss in losses) == 120
    assert gap(losses) == 0
    assert database(tmp_path).execute("SELECT count(*) FROM quarantine").get == 100
    outbox.close()


@pytest.mark.parametrize("damage", ['"observations":9', "}}", "{"])
def test_a_rotten_declaration_stops_nothing(tmp_path, damage):
    """A declaration in which a bit was flipped, readable still or not, is set aside, believed in nothing, and told."""
    outbox, make = open_outbox(tmp_path)
    outbox.put_durable([make.observation(), make.observation()])
    outbox.quarantine(outbox.oldest(1, 10**6)[0].id, "rejected")
    outbox.close()
    rot = "UPDATE event SET line = CAST(replace(CAST(line AS TEXT), '\"observations\":1', ?) AS BLOB) WHERE seq = 3"
    database(tmp_path).execute(rot, (damage,))
    outbox, _ = open_outbox(tmp_path)
    assert [pending.seq for pending in outbox.oldest(10, 10**6)] == [2]
    (loss,) = [event for event in waiting(outbox) if isinstance(event, Loss)]
    assert (loss.seq, loss.reason, loss.observations, loss.lost_seqs) == (4, "corrupt", 0, [3])
    outbox.close()


def test_a_rotten_row_is_set_aside_and_declared(tmp_path):
    """A flipped bit in a stored line is never sent: the row goes to quarantine and one event is declared lost."""
    outbox, make = open_outbox(tmp_path)
    outbox.put_durable([make.decision(), make.observation()])
    outbox.close()
    database(tmp_path).execute(
        "UPDATE event SET line = CAST(replace(line, 'red', 'rad') AS BLOB) WHERE seq = 1"
    )
    outbox, _ = open_outbox(tmp_path)
    assert [pending.seq for pending in outbox.oldest(10, 10**6)] == [2]
    events = waiting(outbox)
    assert [(loss.reason, loss.decisions) for loss in events if isinstance(loss, Loss)] == [
        ("corrupt", 1)
    ]
    assert gap(events) == 0
    outbox.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "record"])
def test_a_damaged_file_is_moved_aside(tmp_path, damage):
    """A corrupt database is kept beside, and a fresh install starts with one declared reset; numbers never collide."""
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
    again, make = open_outbox(tmp_path)
    assert again.install != outbox.install
    assert [(event.reason, event.seq) for event in waiting(again)] == [("outbox_reset", 1)]
    assert again.counters().lost == {"outbox_reset": 1}
    assert (tmp_path / "corrupt.db").exists()
    again.put_durable([make.observation()])
    assert [event.seq for event in waiting(again)] == [1, 2]
    again.close()


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


def test_a_folder_that_cannot_be_used_is_a_storage_error(tmp_path):
    """A file in the folder's place is a StorageError with the path, nothing else."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        open_outbox(tmp_path / "file")


def test_shedding_takes_whole_decisions_and_says_so(tmp_path):
    """On a full outbox decisions go with their outcomes, by the hash of their id, declared, with their probability."""
    outbox, make = open_outbox(tmp_path, limit_bytes=LIMIT)
    for _ in range(6000):
        decision = make.decision()
        outbox.put([decision, make.outcome(decision), make.outcome(decision, slot=1)])
        if outbox.counters().queued > 500:
            sync(outbox)
    sync(outbox)
    assert sum(path.stat().st_size for path in tmp_path.glob("outbox.db*")) <= 1.25 * LIMIT
    assert outbox.counters().pending > 300
    events = waiting(outbox)
    decisions = {event.id: event for event in events if isinstance(event, Decision)}
    outcomes = [event for event in events if isinstance(event, Outcome)]
    assert {outcome.decision for outcome in outcomes} == set(decisions)
    assert len(outcomes) == 2 * len(decisions)
    assert all(survives(id, level_of(event)) for id, event in decisions.items())
    assert min(event.pass_probability for event in decisions.values()) < 1
    assert gap(events) == 0
    lost = sum(event.decisions for event in events if isinstance(event, Loss))
    assert lost + len(decisions) == 6000
    weighted = sum(1 / event.pass_probability for event in decisions.values())
    assert (
        abs(weighted - 6000) < 4 * sum(1 / e.pass_probability**2 for e in decisions.values()) ** 0.5
    )
    outbox.close()


def test_an_event_that_the_lab_cannot_read_does_not_block_shedding(tmp_path):
    """On a full outbox a stored event that breaks the wire contract goes, declared, and storing goes on."""
    outbox, make = open_outbox(tmp_path, limit_bytes=LIMIT)
    for _ in range(6000):
        outbox.put([make.decision(caps={"": 1})])
        if outbox.counters().queued > 500:
            sync(outbox)
    sync(outbox)
    outbox.put_durable([make.observation()])
    events = [
        codec.decode(pending.line)
        for pending in outbox.oldest(10**6, 2**40)
        if b'"caps"' not in pending.line
    ]
    assert sum(event.decisions for event in events if isinstance(event, Loss)) > 1000
    assert any(isinstance(event, Observation) for event in events)
    outbox.close()


def fill(outbox: Outbox, batches: list[list[Outcome]]) -> None:
    for batch in batches:
        outbox.put_durable(batch)


def level_of(event: Decision) -> int:
    return round(-math.log2(event.pass_probability))


def test_shedding_never_touches_what_was_handed_out(tmp_path):
    """What may already be at the lab stays as it was sent, so that its outcomes are not lost behind its back."""
    outbox, make = open_outbox(tmp_path, limit_bytes=512 * 1024)
    outbox.put_durable([make.decision() for _ in range(100)])
    sent = outbox.oldest(100, 10**6)
    for _ in range(30):
        outbox.put_durable([make.decision() for _ in range(50)])
    assert outbox.counters().lost["full"] > 0
    assert outbox.oldest(100, 10**6) == sent
    outbox.close()


def test_when_nothing_may_go_the_new_is_refused_and_declared(tmp_path):
    """With only outcomes of delivered decisions left, put counts a loss, put_durable raises, and room heals both."""
    outbox, make = open_outbox(tmp_path, limit_bytes=256 * 1024)
    decision = make.decision()
    with pytest.raises(StorageError, match="full"):
        fill(outbox, [[make.outcome(decision) for _ in range(50)] for _ in range(100)])
    outbox.put([make.observation()])
    with pytest.raises(StorageError, match="full"):
        sync(outbox)
    assert outbox.counters().lost == {"full": 1}
    seen = []
    while batch := outbox.oldest(500, 10**6):
        seen += [codec.decode(pending.line) for pending in batch]
        outbox.acknowledge([pending.id for pending in batch])
    outbox.put_durable([make.observation()])
    seen += waiting(outbox)
    assert [event.observations for event in seen if isinstance(event, Loss)] == [1]
    assert gap(seen) == 0
    outbox.close()


@pytest.mark.parametrize("updates_state", [False, True])
def test_a_reward_of_a_decision_that_is_given_up_is_not_promised(tmp_path, updates_state):
    """A decision and its rewards have one fate: what comes later is refused, and stays as behaviour if it was that."""
    outbox, make = open_outbox(tmp_path, limit_bytes=512 * 1024)
    decisions = [make.decision() for _ in range(3000)]
    for start in range(0, 3000, 100):
        outbox.put_durable(decisions[start : start + 100])
    kept = {
        id for (id,) in database(tmp_path).execute("SELECT id FROM event WHERE kind = 'decision'")
    }
    assert 0 < len(kept) < 1500
    gone = next(decision for decision in decisions if decision.id not in kept)
    there = max(
        decisions, key=lambda decision: sum(survives(decision.id, level) for level in range(64))
    )
    outbox.put_durable([make.outcome(there, updates_state=updates_state)])
    with pytest.raises(StorageError, match="given up"):
        outbox.put_durable([make.outcome(gone, updates_state=updates_state)])
    events = waiting(outbox)
    assert [event.decision for event in events if isinstance(event, Outcome)] == [there.id]
    assert sum(isinstance(event, Observation) for event in events) == updates_state
    assert gap(events) == 0
    outbox.close()


def test_a_pass_that_fails_gives_up_no_decision(tmp_path, monkeypatch):
    """Where a pass of shedding could not be committed, its decisions are there, and their rewards are promised."""
    outbox, make = open_outbox(tmp_path, threaded=False)
    decisions = [make.decision() for _ in range(100)]
    outbox.put_durable([*decisions, *(make.observation() for _ in range(5))])
    store = outbox._store
    store.limit, save, saved = 20_000, store.database._save_meta, []

    def fail(meta) -> None:
        saved.append(meta)
        if len(saved) == 3:  # the first two are of states and of what was set aside
            raise apsw.IOError("injected")
        save(meta)

    monkeypatch.setattr(store.database, "_save_meta", fail)
    with pytest.raises(apsw.IOError):
        make_room(store)
    assert (store.shed, outbox.counters().pending) == ({}, 105)
    make_room(store)
    assert set(store.shed) <= {decision.id for decision in decisions}
    assert store.shed
    outbox.close()


def test_what_was_handed_out_stays_though_its_decision_goes(tmp_path):
    """An outcome that the lab may have keeps its number and its body when a later copy of its decision is shed."""
    outbox, make = open_outbox(tmp_path, threaded=False)
    decision = next(d for d in iter(make.decision, None) if not survives(d.id, 1))
    outcome = make.outcome(decision)
    outbox.put_durable([outcome])
    sent = outbox.oldest(1, 10**6)
    outbox.put_durable([decision])
    outbox._store.limit = 4096
    make_room(outbox._store)
    assert list(outbox._store.shed) == [decision.id]
    assert outbox.oldest(1, 10**6) == sent
    outbox.close()


def test_a_group_of_wide_slates_overshoots_the_bound_by_little(tmp_path):
    """What is queued while the disk was busy is not written in one piece that is larger than the file may be (P7)."""
    outbox, make = open_outbox(tmp_path, limit_bytes=4 * 2**20)
    other = database(tmp_path)
    other.execute("BEGIN IMMEDIATE")
    slate = [wire.Slot(f"item-{number:03}", number, False, 0.5, 0.5) for number in range(1000)]
    for _ in range(128):
        outbox.put([make.decision(slate=slate, pool=1000, eligible=1000)])
    other.execute("ROLLBACK")
    sync(outbox)
    most = sum(path.stat().st_size for path in tmp_path.glob("outbox.db*"))
    assert outbox.counters().lost["full"] > 50
    assert most <= 1.25 * 4 * 2**20
    outbox.close()


def test_states_cannot_crowd_out_events(tmp_path):
    """Many users' states are bounded to a share of the file: those written longest ago go first."""
    outbox, make = open_outbox(tmp_path, limit_bytes=256 * 1024)
    for number in range(600):
        outbox.put([make.observation()], {f"{number:032x}": bytes(1024)})
        if number % 50 == 0:
            sync(outbox)
    sync(outbox)
    assert outbox.state(f"{599:032x}") == bytes(1024)
    assert outbox.state(f"{0:032x}") is None
    assert outbox.counters().pending > 0
    outbox.close()


def test_the_queue_in_memory_is_bounded(tmp_path):
    """While the disk is stuck the queue stops at its bound; what did not fit is counted, and declared afterwards."""
    outbox, make = open_outbox(tmp_path)
    other = database(tmp_path)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(QUEUE_EVENTS + 25):
        outbox.put([make.observation()])
    assert outbox.counters().queued == QUEUE_EVENTS
    assert outbox.counters().lost == {"queue_full": 25}
    other.execute("ROLLBACK")
    sync(outbox)
    events = waiting(outbox)
    assert sum(event.observations for event in events if isinstance(event, Loss)) == 25
    assert gap(events) == 0
    outbox.close()


def test_a_level_of_which_none_goes_does_not_end_shedding(tmp_path):
    """Where all rows of the lowest level survive their pass, those of the next are halved, and storing goes on."""
    outbox, make = open_outbox(tmp_path, limit_bytes=256 * 1024, threaded=False)
    while outbox._store.database.used() < 240 * 1024:
        outbox.put_durable([make.decision() for _ in range(5)])
    outbox._store.database.writer.execute("UPDATE event SET level = 1")
    for id in [
        id for id in (f"{number:032x}" for number in range(10**6, 10**6 + 200)) if survives(id, 1)
    ]:
        outbox.put_durable([make.decision(id=id)])
    assert outbox.counters().lost["full"] > 0
    outbox.close()


def test_what_was_set_aside_makes_room(tmp_path):
    """Rejected events, and reasons of any length, are cut and deleted where an outbox would else be full for ever."""
    outbox, make = open_outbox(tmp_path, limit_bytes=256 * 1024, threaded=False)
    for _ in range(100):
        decision = make.decision(context="x" * 4000)
        outbox.put_durable([decision])
        outbox.quarantine(decision.id, "because " * 2000)
        outbox.acknowledge([pending.id for pending in outbox.oldest(100, 10**6)])
    rows = "SELECT count(*), sum(length(line)), max(length(reason)) FROM quarantine"
    count, size, longest = next(outbox._store.database.writer.execute(rows))
    assert (outbox.counters().pending, longest) == (0, 512)
    assert 5 < count < 100
    assert size < 256 * 1024
    outbox.close()


def test_states_without_events_do_not_grow_the_queue_for_ever(tmp_path):
    """While the disk is stuck the queue takes no more jobs than its bound, though they hold nothing but states."""
    outbox, _ = open_outbox(tmp_path)
    other = database(tmp_path)
    other.execute("BEGIN IMMEDIATE")
    for number in range(QUEUE_EVENTS + 25):
        outbox.put([], {f"{number}": b"state"})
    assert len(outbox._queue) == QUEUE_EVENTS
    assert outbox.state(f"{QUEUE_EVENTS + 1}") is None
    other.execute("ROLLBACK")
    sync(outbox)
    assert outbox.state("1") == b"state"
    outbox.close()


def test_an_event_that_cannot_be_encoded_blocks_nothing(tmp_path):
    """An oversize event is refused to its caller, declared, and the events around it are stored."""
    outbox, make = open_outbox(tmp_path)
    huge = make.decision(context="x" * wire.MAX_LINE)
    outbox.put([make.observation()])
    with pytest.raises(StorageError, match="at most"):
        outbox.put_durable([huge])
    outbox.put_durable([make.observation()])
    events = waiting(outbox)
    assert [event.seq for event in events] == [1, 3, 4]
    assert gap(events) == 0
    outbox.close()


def test_closing_stores_what_is_queued(tmp_path):
    """After close the queue is on disk, later puts are counted as lost, and nothing raises but put_durable."""
    outbox, make = open_outbox(tmp_path)
    for _ in range(1000):
        outbox.put([make.decision()])
    outbox.close()
    outbox.put([make.decision()])
    assert outbox.counters().lost == {"closed": 1}
    with pytest.raises(StorageError, match="closed"):
        sync(outbox)
    again, _ = open_outbox(tmp_path)
    assert again.counters().pending == 1000
    again.close()


def test_many_threads_lose_nothing(tmp_path):
    """Eight threads put at once: every event is there once, and the numbers have no gap."""
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
    """Half of all puts take less than 50 microseconds: a recommendation never waits for the disk."""
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
    """A row whose id was altered fails its checksum as well as one whose line was."""
    assert checksum("a" * 32, b"line") != checksum("b" * 32, b"line")


def test_without_a_thread_work_writes_what_is_queued(tmp_path):
    """For those who keep time themselves `work` writes, and a reward or closing writes at once."""
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
    again = Outbox(tmp_path, clock=FakeClock(), threaded=False)
    assert len(again.oldest(10, 2**20)) == 4
    again.close()
