"""Erasing one user on the device: no byte is left, other users lose nothing, and losses are
declared."""

from __future__ import annotations

from dataclasses import replace

import apsw
import pytest

from sanderling import Engine
from sanderling.bundle.manifest import Exploration
from sanderling.events.schema import Decision, Loss, Observation, Outcome
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling.outbox import erasure
from sanderling.outbox.outbox import Outbox
from sanderling.outbox.records import WriteRequest
from sanderling.outbox.state_table import StateTable
from tests.support.bundles import write_bundle
from tests.support.engines import (
    outbox_of,
    profiles_of,
    run_on_empty,
    scorer_of,
    stored,
    user_states_of,
)
from tests.support.fakes import EventFactory, FakeClock, FakeEntropy
from tests.support.outboxes import open_store


@pytest.fixture
def engine(tmp_path):
    write_bundle(tmp_path / "bundle", exploration=Exploration(epsilon=1.0, pool=20, daily=1000))
    settings = {"clock": FakeClock(), "entropy": FakeEntropy(), "adapt": True}
    with Engine.open(tmp_path / "bundle", tmp_path / "state", **settings) as opened:
        yield opened


def record_everything(engine, user):
    """Let a user do everything that is stored."""
    for number in range(5):
        slate = engine.recommend(user, k=5)
        assert engine.reward_all(slate, {slate[0]: 1.0, slate[1]: -1.0})
        engine.observe(user, f"item-{number}")


def pseudonym_of(engine, user):
    """Return the present pseudonym of a user."""
    return engine.recommend(user, k=1, greedy=True).pseudonym


def traces(tmp_path, pseudonym):
    """Return the files under the state folder that hold a pseudonym in hex or in bytes."""
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    marks = pseudonym.encode(), bytes.fromhex(pseudonym)
    return [path.name for path in files if any(mark in path.read_bytes() for mark in marks)]


def test_no_byte_of_a_forgotten_user_is_left(engine, tmp_path):
    """States, budgets, residuals and unsent events are gone from every file, log and unused
    pages included."""
    record_everything(engine, "anna")
    pseudonym = pseudonym_of(engine, "anna")
    outbox_of(engine).put_durable([])
    assert traces(tmp_path, pseudonym)
    engine.forget_user("anna")
    assert traces(tmp_path, pseudonym) == []
    engine.close()
    assert traces(tmp_path, pseudonym) == []


def test_other_users_lose_nothing(engine):
    """Events, states and residuals of other users stay as they were."""
    record_everything(engine, "anna")
    record_everything(engine, "ben")
    before = engine.recommend("ben", k=20, greedy=True).items
    engine.forget_user("anna")
    assert engine.recommend("ben", k=20, greedy=True).items == before
    users = [event.user for event in stored(engine) if isinstance(event, Decision | Outcome)]
    assert set(users) == {pseudonym_of(engine, "ben")}
    assert len(users) == 2 + 5 * 3


def test_a_forgotten_user_starts_as_a_new_user(engine):
    """A forgotten user has no history, no residual and a full budget; decisions cannot be
    explained."""
    new_user = engine.recommend("anna", k=20, greedy=True).items
    record_everything(engine, "anna")
    slate = engine.recommend("anna", k=20, greedy=True)
    assert slate.items != new_user
    engine.forget_user("anna")
    assert engine.recommend("anna", k=20, greedy=True).items == new_user
    with pytest.raises(KeyError):
        engine.explain(slate.decision)


def test_forgotten_events_are_declared(engine):
    """Deleted events, stored or queued, are declared as losses, so that no missing number is
    unexplained."""
    record_everything(engine, "anna")
    engine.forget_user("anna")
    outbox_of(engine).put_durable([])
    losses = stored(engine)
    assert {loss.reason for loss in losses} == {"forgotten"}
    counts = [
        sum(getattr(loss, kind) for loss in losses)
        for kind in ("decisions", "outcomes", "observations")
    ]
    assert counts == [5, 10, 5]
    assert losses[-1].seq - len(losses) == sum(counts)


def test_forgotten_events_that_were_sent_are_declared_by_number(engine):
    """Events that the lab may have are named by number: each counts once, whether it arrived or
    not."""
    record_everything(engine, "ben")
    record_everything(engine, "anna")
    record_everything(engine, "ben")
    sent = stored(engine)
    engine.forget_user("anna")
    (loss,) = [event for event in stored(engine) if isinstance(event, Loss)]
    assert (loss.decisions, loss.outcomes, loss.observations) == (5, 10, 5)
    ben = pseudonym_of(engine, "ben")
    assert loss.lost_seqs == [event.seq for event in sent if event.user != ben]


def test_a_forgotten_user_gets_a_new_pseudonym(engine):
    """The lab cannot link the two, and can rebuild the new state: it starts with its pseudonym."""
    record_everything(engine, "anna")
    before = pseudonym_of(engine, "anna")
    engine.forget_user("anna")
    slate = engine.recommend("anna")
    assert slate.pseudonym != before
    engine.observe("anna", "item-3")
    decision = [event for event in stored(engine) if isinstance(event, Decision)][-1]
    assert (decision.user, decision.state_events) == (slate.pseudonym, 0)


def test_an_earlier_slate_is_not_rewarded_under_the_new_pseudonym(engine):
    """A reward that would link the forgotten pseudonym to the new one is refused, with the
    reason."""
    slate = engine.recommend("anna")
    engine.forget_user("anna")
    receipt = engine.reward(slate, slate[0], 1.0)
    assert not receipt
    assert "forgotten" in receipt.reason
    assert {type(event) for event in stored(engine)} == {Loss}


def test_events_of_the_new_pseudonym_during_forgetting_are_stored(engine):
    """What the user does under the new pseudonym before the old rows are gone is stored."""
    record_everything(engine, "anna")
    profiles, scorer = profiles_of(engine), scorer_of(engine)
    key, names = user_states_of(engine).forget("anna")
    profiles.observe("anna", "item-3", "view", scorer)
    outbox_of(engine).forget(names, [key])
    engine.recommend("anna")
    events = [event for event in stored(engine) if not isinstance(event, Loss)]
    assert [type(event) for event in events] == [Observation, Decision]
    assert (events[1].state_events, events[1].state_checksum) == (
        1,
        next_checksum(NO_EVENTS, "item-3", "view"),
    )


def test_an_identity_reset_stands_though_bytes_cannot_be_overwritten_yet(engine, tmp_path):
    """While another process reads the file the identity is reset all the same; the bytes go
    later."""
    record_everything(engine, "anna")
    before = stored(engine)[-1]
    reader = apsw.Connection(str(tmp_path / "state" / "outbox.db"))
    assert reader.execute("BEGIN; SELECT count(*) FROM event").get
    outbox_of(engine).reset_identity()
    slate = engine.recommend("anna")
    assert engine.reward(slate, slate[0], 1.0)
    installs = {event.install for event in stored(engine)}
    assert installs == {outbox_of(engine).install} != {before.install}
    assert traces(tmp_path, before.user)
    reader.close()
    run_on_empty(engine)
    assert not traces(tmp_path, before.user)


def unreadable(table, key):
    raise apsw.IOError("injected")


def test_a_state_that_cannot_be_read_is_not_replaced(tmp_path, monkeypatch):
    """While the file cannot be read the user gets the slates of a new user, and nothing is
    stored or lost."""
    write_bundle(tmp_path / "bundle")
    with Engine.open(tmp_path / "bundle", tmp_path / "state") as engine:
        record_everything(engine, "anna")
        known = profiles_of(engine).snapshot("anna", 0, scorer_of(engine)).state
    with Engine.open(tmp_path / "bundle", tmp_path / "state") as engine:
        before = stored(engine)
        monkeypatch.setattr(StateTable, "get", unreadable)
        slate = engine.recommend("anna")
        engine.observe("anna", "item-3")
        assert len(slate) == 10
        assert not engine.reward(slate, slate[0], 1.0)
        assert stored(engine) == before
    monkeypatch.undo()
    with Engine.open(tmp_path / "bundle", tmp_path / "state") as engine:
        again = profiles_of(engine).snapshot("anna", 0, scorer_of(engine)).state
        assert replace(again, vector=None) == replace(known, vector=None)


def test_a_decision_during_forgetting_leaves_no_event(engine):
    """A slate that was started before the forgetting and ends after it leaves no event and no
    state."""
    record_everything(engine, "anna")
    scorer = scorer_of(engine)
    known = profiles_of(engine).snapshot("anna", 0, scorer)
    record = profiles_of(engine).decision_record(engine.recommend("anna").decision)
    engine.forget_user("anna")
    profiles_of(engine).record_decision(record, known.state, None, 0)
    with pytest.raises(KeyError):
        engine.explain(record.slate.decision)
    assert {type(event) for event in stored(engine)} == {Loss}


def test_without_a_state_folder_the_memory_is_erased(tmp_path):
    """An engine that stores nothing forgets what it holds in memory."""
    write_bundle(tmp_path / "bundle")
    with Engine.open(tmp_path / "bundle") as engine:
        new_user = engine.recommend("anna", greedy=True).items
        engine.observe("anna", "item-3")
        assert engine.recommend("anna", greedy=True).items != new_user
        engine.forget_user("anna")
        assert engine.recommend("anna", greedy=True).items == new_user


def test_after_an_identity_reset_all_users_are_new(engine):
    """When the lab has erased this install, users are new, and later events carry other ids."""
    new_user = engine.recommend("anna", k=20, greedy=True).items
    record_everything(engine, "anna")
    before = stored(engine)[-1]
    outbox_of(engine).reset_identity()
    assert engine.recommend("anna", k=20, greedy=True).items == new_user
    (decision,) = stored(engine)
    assert decision.seq == 1
    assert decision.install != before.install
    assert decision.user != before.user


def test_events_of_the_old_identity_are_refused_after_a_reset(engine, tmp_path):
    """Events and states that were under way during the reset are not stored, and rewards are
    refused."""
    record_everything(engine, "anna")
    profiles, states = profiles_of(engine), user_states_of(engine)
    slate = engine.recommend("anna")
    outbox_of(engine).reset_identity()
    profiles.observe("anna", "item-3", "view", scorer_of(engine))
    outbox_of(engine).put_durable([])
    assert engine.counters()["outbox"].lost["identity_reset"] > 0
    assert not engine.reward(slate, slate[0], 1.0)
    assert stored(engine) == []
    assert traces(tmp_path, slate.pseudonym) == []
    assert traces(tmp_path, states.key("anna")) == []


def test_a_damaged_file_that_was_moved_aside_is_deleted_too(engine, tmp_path):
    """A damaged outbox that was kept may hold the user's events, and is deleted."""
    aside = [tmp_path / "state" / name for name in ("corrupt.db", "corrupt.db-wal")]
    for path in aside:
        path.write_bytes(b"older days")
    engine.forget_user("anna")
    assert not any(path.exists() for path in aside)


def test_the_next_opening_overwrites_what_a_killed_process_deleted(tmp_path):
    """Bytes of rows that were deleted right before a kill are gone from every file."""
    user = "e" * 32
    store = open_store(tmp_path)
    make = EventFactory(store.header.install)
    events = [make.observation(user=user) for _ in range(200)]
    store.write([WriteRequest(events, {"key": user.encode()})], durable=True)
    erasure.delete(store, {user}, ["key"])
    store.close()
    assert any(user.encode() in path.read_bytes() for path in tmp_path.iterdir())
    Outbox(tmp_path, clock=FakeClock(), entropy=FakeEntropy()).close()
    assert not any(user.encode() in path.read_bytes() for path in tmp_path.iterdir())
    store = open_store(tmp_path)
    assert store.states.with_prefix("un") == {}
    store.close()
