"""When the uploader may send, how it starts and how it ends: never against the app's will, never all at once."""

from __future__ import annotations

import random
import socket
import time
from collections import Counter

import pytest

from sanderling.events.schema import Event
from sanderling.runtime.clock import SystemClock
from sanderling.upload import uploader as upload
from sanderling.upload.backoff import FIRST_DELAY_S, Backoff
from sanderling.upload.transport import HttpTransport, Response
from sanderling.upload.uploader import IDLE_S, Uploader
from tests.support.fakes import verdicts
from tests.support.upload_bench import Bench
from tests.support.waiting import wait_until


class Still(random.Random):
    """Draws the same share of every range."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def uniform(self, a: float, b: float) -> float:
        return a + self.share * (b - a)


def started(b: Bench, share: float = 0.0, transport=None, **options) -> Uploader:
    """Start an uploader in real time over the bench's outbox."""
    uploader = Uploader(
        b.outbox, transport or b.transport, clock=SystemClock(), rng=Still(share), **options
    )
    uploader.start()
    return uploader


def test_nothing_is_sent_while_the_app_says_no(bench):
    """Without leave nothing leaves the device, not even by a flush; with it everything does, in order."""
    allowed = [False]
    b = bench(700, may_upload=lambda: allowed[0])
    assert b.uploader.step() == IDLE_S
    assert not b.uploader.drain(0.5)
    assert b.transport.batches == []
    allowed[0] = True
    b.run(5)
    assert b.delivered() == list(range(1, 701))


def test_a_flush_is_not_deceived_by_an_earlier_one(bench):
    """After a flush that emptied the outbox, one that may not send does not say that all is sent."""
    allowed = [True]
    b = bench(1, may_upload=lambda: allowed[0])
    assert b.uploader.drain(2)
    b.outbox.put_durable([b.make.observation()])
    allowed[0] = False
    assert not b.uploader.drain(0.2)


def test_leave_is_asked_before_every_batch(bench):
    """When the network becomes metered in the middle of a backlog, the next batch stays."""
    b = bench(1200, may_upload=lambda: len(b.transport.batches) < 2)
    for _ in range(5):
        b.uploader.step()
    assert len(b.transport.batches) == 2
    assert b.pending() == list(range(1001, 1201))


def test_the_thread_sends_when_woken_and_stops(bench):
    """The background thread sends soon after wake, without waiting out its idle pause, and stop ends it."""
    b = bench(1)
    uploader = started(b)
    assert wait_until(lambda: b.outbox.counters().pending == 0)
    b.outbox.put_durable([b.make.observation()])
    uploader.wake()
    assert wait_until(lambda: b.outbox.counters().pending == 0)
    uploader.stop()
    assert not uploader._thread.is_alive()


def test_the_first_try_waits_for_a_random_moment_and_a_flush_does_not(bench):
    """A thread that has just started sends nothing at once, even when woken; a flush sends all the same."""
    b = bench(1)
    uploader = started(b, share=1.0)
    uploader.wake()
    time.sleep(0.1)
    assert b.transport.batches == []
    assert uploader.drain(2)
    assert b.pending() == []
    uploader.stop()


def test_a_faulty_hook_does_not_end_uploading(bench, monkeypatch):
    """A hook that raises is taken for a no, and asked again."""
    monkeypatch.setattr(upload, "IDLE_S", 0.01)
    answers = iter([ZeroDivisionError("app"), True])

    def hook() -> bool:
        answer = next(answers, True)
        if isinstance(answer, Exception):
            raise answer
        return answer

    b = bench(1)
    uploader = started(b, may_upload=hook)
    assert wait_until(lambda: b.outbox.counters().pending == 0)
    uploader.stop()


def test_a_faulty_hook_is_a_no_to_who_keeps_time_too(bench):
    """A hook that raises raises out of neither `step` nor `drain`: both take it for a no, and send nothing."""

    def hook() -> bool:
        raise ZeroDivisionError("app")

    b = bench(1, may_upload=hook)
    assert b.uploader.step() == IDLE_S
    assert not b.uploader.drain(0.1)
    assert (b.transport.batches, b.pending()) == ([], [1])


def test_a_transport_that_breaks_its_word_does_not_end_uploading(bench):
    """An exception that is no OSError is logged and waited for, and the next try goes out."""
    answers = iter([ZeroDivisionError("transport")])

    def answer(events: list[Event]) -> Response:
        for error in answers:
            raise error
        return verdicts(events, "ok")

    b = bench(3, answer)
    uploader = started(b)
    assert wait_until(lambda: b.outbox.counters().pending == 0)
    uploader.stop()


def test_stopping_does_not_wait_for_a_deaf_server(bench, monkeypatch):
    """With a post under way to a server that never answers, stop returns soon after the time for the post (P32)."""
    monkeypatch.setattr(upload, "LAST_POST_S", 0.1)
    b = bench(1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        uploader = started(
            b, transport=HttpTransport(f"http://127.0.0.1:{deaf.getsockname()[1]}", None)
        )
        assert wait_until(lambda: uploader.counters.attempts == 1)
        before = time.monotonic()
        uploader.stop(2.0)
        b.outbox.close(2.0)
        assert time.monotonic() - before < 1.5
    assert b.outbox.counters().pending == 1


FLEET = 10_000


def peak_share(times: list[float], window_s: float, bin_s: float) -> float:
    """Return the calls of the fullest `bin_s` seconds over the mean of the window."""
    counts = Counter(int(at // bin_s) for at in times)
    return max(counts.values()) / (len(times) / (window_s / bin_s))


@pytest.mark.parametrize("outage_s", [3600, 4 * 3600])
def test_a_fleet_that_loses_its_collector_does_not_stampede(outage_s):
    """Of 10,000 devices after an outage no minute sees more than three times the mean of the next hour, the last one
    comes within it (P26)."""
    times = []
    for device in range(FLEET):
        backoff, now = Backoff(random.Random(device)), random.Random(-device).uniform(0, 60)
        while now < outage_s:
            now += backoff.fail()
        times.append(now - outage_s)
    assert peak_share(times, 3600, 60) <= 3
    assert max(times) <= 3600


def test_a_fleet_that_gets_its_network_back_does_not_stampede():
    """Of 10,000 devices in the minute after an hour without a network no second sees more than three times the mean."""
    times = []
    for device in range(FLEET):
        backoff, now = Backoff(random.Random(device)), random.Random(-device).uniform(0, 60)
        while now < 3600:
            now += backoff.offline()
        times.append(now - 3600)
    assert peak_share(times, 60, 1) <= 3


def test_a_fleet_that_gets_its_power_back_does_not_stampede():
    """10,000 devices that start in the same instant call over half a minute, not at once (P26)."""
    times = [Backoff(random.Random(device)).first() for device in range(FLEET)]
    assert peak_share(times, FIRST_DELAY_S, 1) <= 3


def test_the_thread_waits_what_the_fleet_draws(bench, monkeypatch):
    """The delay that the simulation draws is the one that a thread waits before its first batch, and the only one."""
    b, waits = bench(1), []
    uploader = Uploader(b.outbox, b.transport, clock=SystemClock(), rng=Still(0.2 / FIRST_DELAY_S))
    for event in (uploader._ended, uploader._awake):
        monkeypatch.setattr(event, "wait", waits.append)
    uploader.start()
    assert wait_until(lambda: bool(b.transport.batches))
    uploader.stop()
    assert waits[:2] == [pytest.approx(0.2), 0.0]
