"""Rewards on slow, full and removed storage: the app is never blocked, and hears later what became
of each."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from sanderling import Engine, Receipt, StorageError
from sanderling.events.schema import Outcome
from tests.support.engines import event_store_of, stored
from tests.support.outboxes import database


@pytest.fixture
def threaded(bundle, tmp_path) -> Iterator[Engine]:
    """An engine that writes in a thread of its own, to `tmp_path`/state."""
    with Engine.open(bundle, tmp_path / "state") as engine:
        yield engine


@contextmanager
def blocked(folder: Path) -> Iterator[None]:
    """Hold the lock of an outbox's file, so that no write succeeds."""
    other = database(folder)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


def outcomes(engine: Engine) -> list[str]:
    """Return the items of the stored rewards."""
    return [event.item for event in stored(engine) if isinstance(event, Outcome)]


def test_a_reward_waits_no_longer_than_asked_and_is_stored_later(threaded, tmp_path):
    """While the file is locked a reward returns pending within its deadline; afterwards its receipt
    says that it was stored."""
    slate = threaded.recommend("anna")
    with blocked(tmp_path / "state"):
        started = time.monotonic()
        receipts = [threaded.reward(slate, item, 1.0, timeout_s=0.01) for item in slate]
        waited_s = time.monotonic() - started
        later = [threaded.receipt(receipt.id) for receipt in receipts]
    assert waited_s < 1.0
    for receipt in [*receipts, *later]:
        assert (receipt.stored, receipt.pending, bool(receipt)) == (False, True, False)
        assert "not known to be on disk" in receipt.reason
    assert outcomes(threaded) == [item.id for item in slate]
    assert [threaded.receipt(receipt.id) for receipt in receipts] == [Receipt(True)] * len(slate)


def test_the_deadline_is_a_tenth_of_a_second_unless_given(threaded, tmp_path, monkeypatch):
    """Without `timeout_s` a reward on blocked storage takes a tenth of a second."""
    monkeypatch.undo()  # the patience of the other tests
    slate = threaded.recommend("anna")
    with blocked(tmp_path / "state"):
        receipt = threaded.reward(slate, slate[0], 1.0)
    assert receipt.pending
    assert "after 0.1 s" in receipt.reason


def test_a_pending_receipt_says_why(bundle, tmp_path, monkeypatch):
    """The reason names the error of the last write; the reward is stored once that is over."""
    with Engine.open(bundle, tmp_path, background=False) as engine:
        slate = engine.recommend("anna")
        store = event_store_of(engine)
        with monkeypatch.context() as patch:
            patch.setattr(store, "write", full)
            receipt = engine.reward(slate, slate[0], 1.0)
            assert receipt.pending
            assert "disk is full" in receipt.reason
            assert "disk is full" in engine.receipt(receipt.id).reason
        engine.step()
        assert engine.receipt(receipt.id) == Receipt(True)
        assert outcomes(engine) == [slate[0].id]


def full(*_: object) -> None:
    raise apsw.FullError("database or disk is full")


def test_a_removed_folder_blocks_nothing_and_its_rewards_end_unstored(bundle, tmp_path):
    """Where the state folder was removed rewards are pending, and unstored when the engine closes;
    the catalog cannot be changed, which is an error of ours."""
    engine = Engine.open(bundle, tmp_path / "state")
    slate = engine.recommend("anna")
    shutil.rmtree(tmp_path / "state")
    receipt = engine.reward(slate, slate[0], 1.0, timeout_s=0.0)
    assert receipt.pending
    with pytest.raises(StorageError, match="could not be written"):
        engine.upsert_items([{"id": "new", "text": "new"}])
    with pytest.raises(StorageError, match="could not be written"):
        engine.remove_items(["item-1"])
    engine.close()
    ended = engine.receipt(receipt.id)
    assert (ended.stored, ended.pending) == (False, False)
    assert "closed" in ended.reason


def test_only_pending_rewards_have_an_id(threaded):
    """A stored reward needs no question; an id that is none is a KeyError or a TypeError."""
    slate = threaded.recommend("anna")
    assert threaded.reward(slate, slate[0], 1.0) == Receipt(True, "", False, "")
    with pytest.raises(KeyError):
        threaded.receipt("")
    with pytest.raises(TypeError, match="id: expected str"):
        threaded.receipt(1)


@pytest.mark.parametrize("timeout_s", [-0.1, float("nan"), 3600.5, float("inf")])
def test_a_deadline_out_of_range_is_refused(engine, timeout_s):
    """A wait is 0 to 3600 seconds; anything else stores nothing."""
    slate = engine.recommend("anna")
    with pytest.raises(ValueError, match="timeout_s: expected a number"):
        engine.reward(slate, slate[0], 1.0, timeout_s=timeout_s)
    with pytest.raises(TypeError, match="timeout_s: expected a number"):
        engine.reward(slate, slate[0], 1.0, timeout_s="1")
    assert outcomes(engine) == []


def test_an_event_loop_runs_while_rewards_wait(threaded, tmp_path):
    """Twenty rewards wait for blocked storage in one event loop, which goes on; unblocked, all are
    stored."""

    async def app() -> list[Receipt]:
        slate = threaded.recommend("anna", k=10)
        with blocked(tmp_path / "state"):
            rewards = [
                asyncio.ensure_future(threaded.areward(slate, item, 1.0, timeout_s=60.0))
                for item in [*slate, *slate]
            ]
            await threaded.aobserve("anna", "item-1")
            for _ in range(50):  # turns that a blocked loop would not make
                await asyncio.sleep(0)
            assert not any(reward.done() for reward in rewards)
        return await asyncio.gather(*rewards)

    assert asyncio.run(app()) == [Receipt(True)] * 20
    assert len(outcomes(threaded)) == 20


def test_an_awaited_reward_keeps_its_deadline(threaded, tmp_path):
    """On blocked storage `areward` ends pending at its deadline, and is stored afterwards."""

    async def app() -> Receipt:
        slate = threaded.recommend("anna")
        with blocked(tmp_path / "state"):
            return await threaded.areward(slate, slate[0], 1.0, timeout_s=0.01)

    receipt = asyncio.run(app())
    assert receipt.pending
    assert len(outcomes(threaded)) == 1
    assert threaded.receipt(receipt.id) == Receipt(True)


def test_a_cancelled_wait_loses_no_reward(threaded, tmp_path):
    """A task that is cancelled while its reward waits does not take the reward back."""

    async def app() -> None:
        slate = threaded.recommend("anna")
        assert stored(threaded)  # the decision
        with blocked(tmp_path / "state"):
            reward = asyncio.ensure_future(threaded.areward(slate, slate[0], 1.0, timeout_s=60.0))
            while not threaded.counters()["outbox"].queued:
                await asyncio.sleep(0)
            reward.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reward

    asyncio.run(app())
    assert len(outcomes(threaded)) == 1


def test_without_a_thread_rewards_are_awaited_too(bundle, tmp_path):
    """Without `background` an awaited reward is written by a thread of the event loop."""
    with Engine.open(bundle, tmp_path, background=False) as engine:
        slate = engine.recommend("anna")
        assert asyncio.run(engine.areward(slate, slate[0], 1.0)) == Receipt(True)
        assert len(outcomes(engine)) == 1
