"""Forgetting a user on the device: no byte is left, nothing of anybody else is lost, and the gap is declared."""

from __future__ import annotations

import pytest

from sanderling import Engine
from sanderling.contract.events import Decision, Loss, Outcome
from sanderling.contract.manifest import Exploration
from tests.bundles import write_bundle
from tests.engine.test_engine import stored
from tests.fakes import FakeClock, FakeEntropy


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


def traces(tmp_path, pseudonym):
    """Return the files under the state folder that hold a pseudonym in hex or in bytes."""
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    marks = pseudonym.encode(), bytes.fromhex(pseudonym)
    return [path.name for path in files if any(mark in path.read_bytes() for mark in marks)]


def test_no_byte_of_a_forgotten_user_is_left(engine, tmp_path):
    """States, budgets, residuals and unsent events are gone from every file, the write-ahead log and free pages too."""
    live(engine, "anna")
    pseudonym = engine._tell.pseudonym("anna")
    engine._outbox.put_durable([])
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
    assert set(users) == {engine._tell.pseudonym("ben")}
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
    """The events that are gone are counted in a loss with its reason, so that the lab sees no unexplained gap."""
    live(engine, "anna")
    engine.forget_user("anna")
    (loss,) = [event for event in stored(engine) if isinstance(event, Loss)]
    assert (loss.reason, loss.decisions, loss.outcomes, loss.observations) == ("forgotten", 5, 10, 5)
    assert loss.seq - 1 - (5 + 10 + 5) == 0


def test_what_was_handed_out_is_declared_by_its_numbers(engine):
    """Events that the lab may have, or may not, are named by number: they count once, whether they came or not."""
    live(engine, "anna")
    stored(engine)
    engine.observe("anna", "item-9")
    engine.forget_user("anna")
    (loss,) = stored(engine)
    assert (loss.decisions, loss.outcomes, loss.observations) == (5, 10, 6)
    assert loss.numbers == list(range(1, 21))


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
    engine._outbox.begin_anew()
    engine._introduce()
    assert engine.recommend("anna", k=20, greedy=True).items == stranger
    (decision,) = stored(engine)
    assert decision.seq == 1
    assert decision.install != before.install
    assert decision.user != before.user


def test_a_damaged_file_that_was_moved_aside_goes_too(engine, tmp_path):
    """What is kept of a damaged outbox may hold the user's past, and is deleted with it."""
    aside = [tmp_path / "state" / name for name in ("corrupt.db", "corrupt.db-wal")]
    for path in aside:
        path.write_bytes(b"older days")
    engine.forget_user("anna")
    assert not any(path.exists() for path in aside)
