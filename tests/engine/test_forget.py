"""Forgetting a user on the device: no byte is left, nothing of anybody else is lost, and the gap is declared."""

from __future__ import annotations

import apsw
import pytest

from sanderling import Engine
from sanderling.bundle.manifest import Exploration
from sanderling.events.schema import Decision, Loss, Observation, Outcome
from sanderling.events.state_checksum import NO_EVENTS, next_checksum
from sanderling.outbox import erasure
from sanderling.outbox.event_store import EventStore, WriteRequest
from sanderling.outbox.outbox import Outbox
from tests.support.bundles import write_bundle
from tests.support.engines import outbox_of, profiles_of, run_on_empty, scorer_of, stored
from tests.support.fakes import EventFactory, FakeClock, FakeEntropy


@pytest.fixture
def engine(tmp_path):
    write_bundle(tmp_path / "bundle", exploration=Exploration(epsilon=1.0, pool=20, daily=1000))
    settings = {"clock": FakeClock(), "entropy": FakeEntropy(), "adapt": True}
    with Engine.open(tmp_path / "bundle", tmp_path / "state", **settings) as opened:
        yield opened


def live(engine, user):
    """Let a user do everything that leaves a trace."""
    for at in range(5):
        slate = engine.recommend(user, k=5)
        assert engine.reward_all(slate, {slate[0]: 1.0, slate[1]: -1.0})
        engine.observe(user, f"item-{at}")


def name_of(engine, user):
    """Return the pseudonym that stands for a user now."""
    return engine.recommend(user, k=1, greedy=True).pseudonym


def traces(tmp_path, pseudonym):
    """Return the files under the state folder that hold a pseudonym in hex or in bytes."""
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    marks = pseudonym.encode(), bytes.fromhex(pseudonym)
    return [path.name for path in files if any(mark in path.read_bytes() for mark in marks)]


def test_no_byte_of_a_forgotten_user_is_left(engine, tmp_path):
    """States, budgets, residuals and unsent events are gone from every file, the write-ahead log and free pages too."""
    live(engine, "anna")
    pseudonym = name_of(engine, "anna")
    outbox_of(engine).put_durable([])
    assert traces(tmp_path, pseudonym)
    engine.forget_user("anna")
    assert traces(tmp_path, pseudonym) == []
    engine.close()
    assert traces(tmp_path, pseudonym) == []


def test_others_lose_nothing(engine):
    """What other users did stays, and their states and residuals are as before."""
    live(engine, "anna")
    live(engine, "ben")
    before = engine.recommend("ben", k=20, greedy=True).items
    engine.forget_user("anna")
    assert engine.recommend("ben", k=20, greedy=True).items == before
    users = [event.user for event in stored(engine) if isinstance(event, Decision | Outcome)]
    assert set(users) == {name_of(engine, "ben")}
    assert len(users) == 2 + 5 * 3


def test_a_forgotten_user_comes_back_as_a_stranger(engine):
    """After forgetting, the user has no history, no residual and a whole budget; decisions cannot be explained."""
    stranger = engine.recommend("anna", k=20, greedy=True).items
    live(engine, "anna")
    slate = engine.recommend("anna", k=20, greedy=True)
    assert slate.items != stranger
    engine.forget_user("anna")
    assert engine.recommend("anna", k=20, greedy=True).items == stranger
    with pytest.raises(KeyError):
        engine.explain(slate.decision)


def test_what_was_never_sent_is_declared(engine):
    """What is gone, stored or queued, is counted in losses with their reason, so that no gap is unexplained."""
    live(engine, "anna")
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


def test_what_was_handed_out_is_declared_by_its_numbers(engine):
    """Events that the lab may have, or may not, are named by number: they count once, whether they came or not."""
    live(engine, "ben")
    live(engine, "anna")
    live(engine, "ben")
    sent = stored(engine)
    engine.forget_user("anna")
    (loss,) = [event for event in stored(engine) if isinstance(event, Loss)]
    assert (loss.decisions, loss.outcomes, loss.observations) == (5, 10, 5)
    ben = name_of(engine, "ben")
    assert loss.lost_seqs == [event.seq for event in sent if event.user != ben]


def test_who_was_forgotten_comes_back_under_another_name(engine):
    """The lab cannot join the two, and can rebuild the new state, for its name began with it; also after a restart."""
    live(engine, "anna")
    before = name_of(engine, "anna")
    engine.forget_user("anna")
    slate = engine.recommend("anna")
    assert slate.pseudonym != before
    engine.observe("anna", "item-3")
    decision = [event for event in stored(engine) if isinstance(event, Decision)][-1]
    assert (decision.user, decision.state_events) == (slate.pseudonym, 0)


def test_a_slate_from_before_is_not_rewarded_under_the_new_name(engine):
    """A reward that would join the forgotten name with the new one is refused, in words; `seen` says nothing."""
    slate = engine.recommend("anna")
    engine.forget_user("anna")
    receipt = engine.reward(slate, slate[0], 1.0)
    assert not receipt
    assert "forgotten" in receipt.reason
    assert {type(event) for event in stored(engine)} == {Loss}


def test_a_stranger_who_came_while_forgetting_is_told_of(engine):
    """What the user does under the new name before the old one's rows are gone is stored, and its states check out."""
    live(engine, "anna")
    profiles, scorer = profiles_of(engine), scorer_of(engine)
    key, names = profiles._states.forget("anna")
    profiles.observe("anna", "item-3", "view", scorer)
    outbox_of(engine).forget(names, [key])
    engine.recommend("anna")
    told = [event for event in stored(engine) if not isinstance(event, Loss)]
    assert [type(event) for event in told] == [Observation, Decision]
    assert (told[1].state_events, told[1].state_checksum) == (
        1,
        next_checksum(NO_EVENTS, "item-3", "view"),
    )


def test_an_erasure_stands_though_its_bytes_cannot_be_overwritten_yet(engine, tmp_path):
    """With somebody reading the file the install begins anew all the same and goes on telling; the bytes go later."""
    live(engine, "anna")
    before = stored(engine)[-1]
    reader = apsw.Connection(str(tmp_path / "state" / "outbox.db"))
    assert reader.execute("BEGIN; SELECT count(*) FROM event").get
    outbox_of(engine).reset_identity()
    slate = engine.recommend("anna")
    assert engine.reward(slate, slate[0], 1.0)
    assert (
        {event.install for event in stored(engine)}
        == {outbox_of(engine).install}
        != {before.install}
    )
    assert traces(tmp_path, before.user)
    reader.close()
    run_on_empty(engine)
    assert not traces(tmp_path, before.user)


def test_a_state_that_cannot_be_read_is_not_replaced(tmp_path):
    """While the file cannot be read the user gets slates as a stranger, of whom nothing is told, and loses nothing."""
    write_bundle(tmp_path / "bundle")
    with Engine.open(tmp_path / "bundle", tmp_path / "state") as engine:
        live(engine, "anna")
        known = profiles_of(engine).snapshot("anna", 0, scorer_of(engine)).state
    with Engine.open(tmp_path / "bundle", tmp_path / "state") as engine:
        before = stored(engine)
        outbox_of(engine)._store.database.reader.close()
        slate = engine.recommend("anna")
        engine.observe("anna", "item-3")
        assert len(slate) == 10
        assert not engine.reward(slate, slate[0], 1.0)
        assert stored(engine) == before
    with Engine.open(tmp_path / "bundle", tmp_path / "state") as engine:
        again = profiles_of(engine).snapshot("anna", 0, scorer_of(engine)).state
        assert (again.pseudonym, again.checksum, again.events) == (
            known.pseudonym,
            known.checksum,
            known.events,
        )


def test_a_decision_under_way_tells_nothing_of_who_was_forgotten_meanwhile(engine):
    """A slate that was begun before and ends after the forgetting is shown and leaves no event and no state."""
    live(engine, "anna")
    scorer = scorer_of(engine)
    known = profiles_of(engine).snapshot("anna", 0, scorer)
    made = profiles_of(engine).remembered(engine.recommend("anna").decision)
    engine.forget_user("anna")
    profiles_of(engine).record_decision(made, known.state, None, 0)
    with pytest.raises(KeyError):
        engine.explain(made.slate.decision)
    assert {type(event) for event in stored(engine)} == {Loss}


def test_without_a_state_folder_memory_is_forgotten(tmp_path):
    """An engine that stores nothing forgets what it holds in memory."""
    write_bundle(tmp_path / "bundle")
    with Engine.open(tmp_path / "bundle") as engine:
        stranger = engine.recommend("anna", greedy=True).items
        engine.observe("anna", "item-3")
        assert engine.recommend("anna", greedy=True).items != stranger
        engine.forget_user("anna")
        assert engine.recommend("anna", greedy=True).items == stranger


def test_after_an_erasure_the_engine_knows_nobody_and_has_another_name(engine):
    """When the lab has erased this install, users are strangers, and later events carry other names."""
    stranger = engine.recommend("anna", k=20, greedy=True).items
    live(engine, "anna")
    before = stored(engine)[-1]
    outbox_of(engine).reset_identity()
    assert engine.recommend("anna", k=20, greedy=True).items == stranger
    (decision,) = stored(engine)
    assert decision.seq == 1
    assert decision.install != before.install
    assert decision.user != before.user


def test_what_was_told_under_the_old_name_does_not_follow_an_erasure(engine, tmp_path):
    """Events and states of whoever was at it during the erasure are stored under no name, and rewards are refused."""
    live(engine, "anna")
    profiles, slate = profiles_of(engine), engine.recommend("anna")
    outbox_of(engine).reset_identity()
    profiles.observe("anna", "item-3", "view", scorer_of(engine))
    outbox_of(engine).put_durable([])
    assert engine.counters()["outbox"].lost["begun_anew"] > 0
    assert not engine.reward(slate, slate[0], 1.0)
    assert stored(engine) == []
    assert traces(tmp_path, slate.pseudonym) == []
    assert traces(tmp_path, profiles._states.key("anna")) == []


def test_a_damaged_file_that_was_moved_aside_goes_too(engine, tmp_path):
    """What is kept of a damaged outbox may hold the user's past, and is deleted with it."""
    aside = [tmp_path / "state" / name for name in ("corrupt.db", "corrupt.db-wal")]
    aside[0].mkdir()
    for path in (aside[0] / "moved.db", aside[1]):
        path.write_bytes(b"older days")
    engine.forget_user("anna")
    assert not any(path.exists() for path in aside)


def test_what_a_killed_process_did_not_scrub_the_next_one_does(tmp_path):
    """Bytes of rows that were deleted right before a kill are gone from every file after the next opening."""
    settings = {"limit_bytes": 2**20, "clock": FakeClock(), "entropy": FakeEntropy()}
    store = EventStore(tmp_path, **settings)
    make = EventFactory(store.meta.install)
    store.write(
        [WriteRequest([make.observation(user="e" * 32) for _ in range(200)], {"key": b"e" * 32})],
        {},
        (),
        durable=True,
    )
    erasure.delete(store, {"e" * 32}, ["key"])
    store.database.close()
    assert any(b"e" * 32 in path.read_bytes() for path in tmp_path.iterdir())
    Outbox(tmp_path, **settings).close()
    assert not any(b"e" * 32 in path.read_bytes() for path in tmp_path.iterdir())
    store = EventStore(tmp_path, **settings)
    assert list(store.states("un")) == []
    store.database.close()
