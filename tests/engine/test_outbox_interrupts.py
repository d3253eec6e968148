"""A signal handler that uses the outbox amid a call of the outbox: both end, and what either promises is kept."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import apsw
import pytest

from sanderling.clock import SystemClock
from sanderling.contract.events import Observation
from sanderling.errors import StorageError
from sanderling.outbox import AMID, Outbox
from tests.interrupts import amid, amid_each_gap
from tests.support.fakes import EventFactory

LIMIT = 2**20  # with a small ballast it opens soon


class App:
    """Rewards, by observations that are to be durable, and what was promised and what was not known."""

    def __init__(self, folder: Path, threaded: bool) -> None:
        self.outbox = Outbox(folder, limit_bytes=LIMIT, clock=SystemClock(), threaded=threaded)
        self.make = EventFactory(self.outbox.install)
        self.told: list[str] = []
        self.promised: list[str] = []
        self.reasons: set[str] = set()

    def reward(self, timeout_s: float = 60.0) -> None:
        event = self.make.observation()
        self.told.append(event.id)
        try:
            self.outbox.put_durable([event], timeout_s)
            self.promised.append(event.id)
        except StorageError as error:
            self.reasons.add(str(error))

    def send(self) -> None:
        with suppress(StorageError):
            self.outbox.oldest(10, 10**6)

    def stored(self) -> list[str]:
        return [pending.id for pending in self.outbox.oldest(10**6, 2**30)]


@pytest.fixture(params=[False, True], ids=["unthreaded", "threaded"])
def app(request, tmp_path) -> Iterator[App]:
    app = App(tmp_path, request.param)
    yield app
    app.outbox.close()


def check(app: App) -> None:
    """Everything is in the file once, in the end at least, and counted; nobody waited in vain."""
    stored = app.stored()
    assert sorted(stored) == sorted(app.told)
    assert app.reasons <= {f"the reward is not known to be on disk: {AMID}"}
    counters = app.outbox.counters()
    assert (counters.queued, counters.pending, counters.stored) == (0, len(stored), len(stored))
    assert (counters.lost, counters.failed_commits) == ({}, 0)


def test_a_handler_may_reward_amid_a_reward(app):
    """Wherever a handler interrupts a reward to reward: both are stored, and it is not promised too early."""

    def handler() -> None:
        app.reward()
        if app.promised[-1:] == app.told[-1:]:
            count = "SELECT count(*) FROM event WHERE id = ?"
            assert app.outbox._store.database.reader.execute(count, app.told[-1:]).get == 1

    assert amid_each_gap(app.reward, handler) >= 20
    app.outbox.work()
    check(app)


def test_a_handler_may_reward_amid_an_upload(app):
    """The same where it is the uploader's reading that is interrupted."""
    app.reward()
    assert amid_each_gap(app.send, app.reward) >= 10
    check(app)


def test_a_handler_may_upload_amid_a_reward(app):
    """A handler that reads what is to be sent amid a reward is told so, or served; the reward is stored."""
    assert amid_each_gap(app.reward, app.send) >= 20
    check(app)


def rows(folder: Path) -> list[str]:
    """Return the ids in the file of an outbox that has let its folder go."""
    apsw.Connection(str(folder / "outbox.lock")).execute("BEGIN EXCLUSIVE")
    return [id for (id,) in apsw.Connection(str(folder / "outbox.db")).execute("SELECT id FROM event")]


def test_a_handler_may_close_what_it_interrupts(tmp_path):
    """An outbox without a thread that is closed amid a reward stores what it holds, and lets its folder go."""
    for gap in itertools.count(1):
        app = App(tmp_path / str(gap), threaded=False)
        if not amid(app.reward, app.outbox.close, gap):
            app.outbox.close()
            break
        assert rows(tmp_path / str(gap)) == app.promised
    assert gap > 50


def test_a_handler_may_come_while_garbage_is_collected(tmp_path):
    """Finalizers run wherever an object is made, and handlers with them: what they queue amid a reward does no harm."""
    app = App(tmp_path, threaded=False)
    late = [app.make.observation() for _ in range(50)]

    def finalizer(phase: str, info: object) -> None:
        if late:
            app.told.append(late[-1].id)
            app.outbox.put([late.pop()])

    thresholds = gc.get_threshold()
    gc.callbacks.append(finalizer)
    gc.set_threshold(1)
    try:
        while late:
            app.reward()
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(finalizer)
    app.outbox.work()
    check(app)
    app.outbox.close()


def test_a_count_is_right_whatever_a_handler_does_amid_counting(app):
    """A handler that comes where the events of a call are counted does not make a number of them vanish."""
    late = [app.make.observation()]

    class Interrupted(list[Observation]):
        def __len__(self) -> int:
            if late:
                app.outbox.put([late.pop()])
            return super().__len__()

    app.outbox.put(Interrupted([app.make.observation()]))
    app.outbox.put_durable([])
    assert app.outbox.counters().queued == 0
