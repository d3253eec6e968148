"""A full outbox sheds whole decisions, declares them, and still stores new ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import apsw
import pytest

from sanderling.errors import StorageError
from sanderling.events import codec
from sanderling.events import schema as wire
from sanderling.events.schema import Decision, Loss, Observation, Outcome
from sanderling.outbox.database import OutboxHeader
from sanderling.outbox.outbox import Outbox
from sanderling.outbox.records import WriteRequest
from sanderling.outbox.shedding import make_room, survives
from tests.support.fakes import EventFactory
from tests.support.outboxes import (
    database,
    n_undeclared,
    open_outbox,
    open_store,
    sync,
    waiting,
)

LIMIT = 2 * 2**20


def test_shedding_removes_whole_decisions_and_declares_them(tmp_path):
    """On a full outbox decisions go with their outcomes, by the hash of their id; losses and
    probabilities are declared."""
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
    assert n_undeclared(events) == 0
    lost = sum(event.decisions for event in events if isinstance(event, Loss))
    assert lost + len(decisions) == 6000
    weighted = sum(1 / event.pass_probability for event in decisions.values())
    assert (
        abs(weighted - 6000) < 4 * sum(1 / e.pass_probability**2 for e in decisions.values()) ** 0.5
    )
    outbox.close()


def test_an_unreadable_event_does_not_block_shedding(tmp_path):
    """A stored event that breaks the wire contract is removed and declared; others are stored."""
    outbox, make = open_outbox(tmp_path, limit_bytes=LIMIT)
    for _ in range(6000):
        outbox.put([make.decision(caps={"": 1})])
        if outbox.counters().queued > 500:
            sync(outbox)
    sync(outbox)
    outbox.put_durable([make.observation()])
    events = [
        codec.decode(stored.line)
        for stored in outbox.oldest(10**6, 2**40)
        if b'"caps"' not in stored.line
    ]
    assert sum(event.decisions for event in events if isinstance(event, Loss)) > 1000
    assert any(isinstance(event, Observation) for event in events)
    outbox.close()


def fill(outbox: Outbox, batches: list[list[Outcome]]) -> None:
    for batch in batches:
        outbox.put_durable(batch)


def level_of(event: Decision) -> int:
    return round(-math.log2(event.pass_probability))


def test_shedding_never_touches_sent_events(tmp_path):
    """What the lab may already have stays as it was sent, so that its outcomes still refer to
    it."""
    outbox, make = open_outbox(tmp_path, limit_bytes=512 * 1024)
    outbox.put_durable([make.decision() for _ in range(100)])
    sent = outbox.oldest(100, 10**6)
    for _ in range(30):
        outbox.put_durable([make.decision() for _ in range(50)])
    assert outbox.counters().lost["full"] > 0
    assert outbox.oldest(100, 10**6) == sent
    outbox.close()


def test_new_events_are_refused_and_declared_when_nothing_may_be_shed(tmp_path):
    """With only outcomes of delivered decisions left, `put` counts a loss and `put_durable` raises,
    until there is room."""
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
        seen += [codec.decode(stored.line) for stored in batch]
        outbox.acknowledge([stored.id for stored in batch])
    outbox.put_durable([make.observation()])
    seen += waiting(outbox)
    assert [event.observations for event in seen if isinstance(event, Loss)] == [1]
    assert n_undeclared(seen) == 0
    outbox.close()


@pytest.mark.parametrize("updates_state", [False, True])
def test_the_reward_of_a_shed_decision_is_refused(tmp_path, updates_state):
    """A later reward of a shed decision is refused; one that updated the state stays as an
    observation."""
    outbox, make = open_outbox(tmp_path, limit_bytes=512 * 1024)
    decisions = [make.decision() for _ in range(3000)]
    for start in range(0, 3000, 100):
        outbox.put_durable(decisions[start : start + 100])
    kept = {
        id for (id,) in database(tmp_path).execute("SELECT id FROM event WHERE type = 'decision'")
    }
    assert 0 < len(kept) < 1500
    shed = next(decision for decision in decisions if decision.id not in kept)
    kept_longest = max(
        decisions, key=lambda decision: sum(survives(decision.id, level) for level in range(64))
    )
    outbox.put_durable([make.outcome(kept_longest, updates_state=updates_state)])
    with pytest.raises(StorageError, match="was shed"):
        outbox.put_durable([make.outcome(shed, updates_state=updates_state)])
    events = waiting(outbox)
    assert [event.decision for event in events if isinstance(event, Outcome)] == [kept_longest.id]
    assert sum(isinstance(event, Observation) for event in events) == updates_state
    assert n_undeclared(events) == 0
    outbox.close()


def test_a_pass_that_is_not_committed_sheds_no_decision(tmp_path, monkeypatch):
    """Where a pass of shedding fails, its decisions are still there, and their rewards are
    confirmed."""
    outbox, make = open_outbox(tmp_path, threaded=False)
    decisions = [make.decision() for _ in range(100)]
    outbox.put_durable([*decisions, *(make.observation() for _ in range(5))])
    outbox.close()
    store = open_store(tmp_path, 20_000)
    transaction = store.transaction
    started = []

    @contextmanager
    def failing(durable: bool) -> Iterator[OutboxHeader]:
        started.append(durable)
        with transaction(durable) as header:
            yield header
            if len(started) == 2:  # the first trims states
                raise apsw.IOError("injected")

    monkeypatch.setattr(store, "transaction", failing)
    with pytest.raises(apsw.IOError):
        make_room(store)
    assert (store.shed_decisions, store.header.events) == ({}, 105)
    make_room(store)
    assert set(store.shed_decisions) <= {decision.id for decision in decisions}
    assert store.shed_decisions
    store.close()


def test_a_sent_outcome_stays_when_its_decision_is_shed(tmp_path):
    """An outcome that the lab may have keeps its number and body when its decision is shed."""
    outbox, make = open_outbox(tmp_path, threaded=False)
    decision = next(d for d in iter(make.decision, None) if not survives(d.id, 1))
    outcome = make.outcome(decision)
    outbox.put_durable([outcome])
    sent = outbox.oldest(1, 10**6)
    outbox.put_durable([decision])
    outbox.close()
    store = open_store(tmp_path, 4096)
    make_room(store)
    assert list(store.shed_decisions) == [decision.id]
    assert store.oldest(1, 10**6) == sent
    store.close()


def test_wide_slates_exceed_the_limit_by_little(tmp_path):
    """What was queued while the disk was busy is not written in one piece larger than the limit."""
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


def test_states_do_not_crowd_out_events(tmp_path):
    """The states of many users are bounded to a share of the file; those written longest ago go
    first."""
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


def test_a_pass_that_removes_nothing_does_not_end_shedding(tmp_path):
    """Where all rows of the lowest level survive their pass, those of the next level are halved."""
    limit = 256 * 1024
    store = open_store(tmp_path, limit)
    make = EventFactory(store.header.install)
    while store.used_bytes() < 240 * 1024:
        store.write([WriteRequest([make.decision() for _ in range(5)], {})], durable=True)
    store.close()
    database(tmp_path).execute("UPDATE event SET level = 1")
    outbox, _ = open_outbox(tmp_path, limit_bytes=limit, threaded=False)
    for id in [
        id for id in (f"{number:032x}" for number in range(10**6, 10**6 + 200)) if survives(id, 1)
    ]:
        outbox.put_durable([make.decision(id=id)])
    assert outbox.counters().lost["full"] > 0
    outbox.close()
