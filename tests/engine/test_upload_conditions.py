"""When the uploader sends: not against the app's will, and many devices not at the same moment."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter

import pytest

from sanderling.events.schema import Event
from sanderling.runtime.clock import SystemClock
from sanderling.upload import uploader as upload
from sanderling.upload.backoff import MAX_START_DELAY_S, Backoff
from sanderling.upload.transport import HttpTransport, Response
from sanderling.upload.uploader import IDLE_S, Uploader, UploadOptions
from tests.support.fakes import verdicts
from tests.support.upload_bench import Bench
from tests.support.waiting import wait_until


class FixedShare(random.Random):
    """Draws the same share of every range."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def uniform(self, a: float, b: float) -> float:
        return a + self.share * (b - a)


def started(b: Bench, share: float = 0.0, transport=None, **options) -> Uploader:
    """Start an uploader in real time over the bench's outbox."""
    uploader = Uploader(
        b.outbox,
        transport or b.transport,
        UploadOptions(**options),
        clock=SystemClock(),
        rng=FixedShare(share),
    )
    uploader.start()
    return uploader


def test_nothing_is_sent_while_the_app_does_not_allow_it(bench):
    """Without permission nothing leaves the device, not even by `drain`; with it everything does,
    in order.
    """
    allowed = [False]
    b = bench(700, may_upload=lambda: allowed[0])
    assert b.uploader.step() == IDLE_S
    assert not b.uploader.drain(0.5)
    assert b.transport.batches == []
    allowed[0] = True
    b.run(5)
    assert b.delivered() == list(range(1, 701))


def test_drain_does_not_repeat_an_earlier_result(bench):
    """After a `drain` that emptied the outbox, one that may not send returns False."""
    allowed = [True]
    b = bench(1, may_upload=lambda: allowed[0])
    assert b.uploader.drain(2)
    b.outbox.put_durable([b.make.observation()])
    allowed[0] = False
    assert not b.uploader.drain(0.2)


def test_a_collector_that_rejects_everything_is_asked_less_and_less_often(bench):
    """Each rejected loss leaves another one: after a day, few requests and no event too many."""
    b = bench(3, lambda events: verdicts(events, "rejected"))
    while b.clock.mono_ms() < 86_400_000 and b.uploader.counters.attempts < 500:
        b.clock.advance(max(0.01, b.uploader.step()))
    assert b.uploader.counters.attempts < 500
    assert len(b.pending()) == 3
    b.transport.answer = lambda events: verdicts(events, "ok")
    b.run(10)
    assert b.pending() == []


def test_permission_is_asked_before_every_batch(bench):
    """When the network becomes metered in the middle of a backlog, the next batch is not sent."""
    b = bench(1200, may_upload=lambda: len(b.transport.batches) < 2)
    for _ in range(5):
        b.uploader.step()
    assert len(b.transport.batches) == 2
    assert b.pending() == list(range(1001, 1201))


def test_wake_makes_the_thread_send_and_stop_ends_it(bench):
    """The background thread sends soon after `wake`, without finishing its idle pause."""
    b = bench(1)
    uploader = started(b)
    assert wait_until(lambda: b.outbox.counters().pending == 0)
    b.outbox.put_durable([b.make.observation()])
    uploader.wake()
    assert wait_until(lambda: b.outbox.counters().pending == 0)
    assert uploader.is_running
    uploader.stop()
    assert not uploader.is_running


def test_the_first_attempt_waits_for_a_random_time_and_drain_does_not(bench):
    """A thread that has just started sends nothing at once, even when woken; `drain` does."""
    b = bench(1)
    uploader = started(b, share=1.0)
    uploader.wake()
    time.sleep(0.1)
    assert b.transport.batches == []
    assert uploader.drain(2)
    assert b.pending() == []
    uploader.stop()


def test_a_faulty_hook_does_not_end_uploading(bench, monkeypatch):
    """A hook that raises counts as False, and is called again."""
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


def test_a_faulty_hook_raises_from_neither_step_nor_drain(bench):
    """`step` and `drain` take a hook that raises for False, and send nothing."""

    def hook() -> bool:
        raise ZeroDivisionError("app")

    b = bench(1, may_upload=hook)
    assert b.uploader.step() == IDLE_S
    assert not b.uploader.drain(0.1)
    assert (b.transport.batches, b.pending()) == ([], [1])


def test_a_transport_that_raises_anything_does_not_end_uploading(bench):
    """After an exception that is no `OSError` the uploader backs off and tries again."""
    answers = iter([ZeroDivisionError("transport")])

    def answer(events: list[Event]) -> Response:
        for error in answers:
            raise error
        return verdicts(events, "ok")

    b = bench(3, answer)
    uploader = started(b)
    assert wait_until(lambda: b.outbox.counters().pending == 0)
    uploader.stop()


def test_stop_does_not_wait_for_a_server_that_never_responds(bench, monkeypatch):
    """With a post under way, `stop` returns soon after the time that it gives the post."""
    monkeypatch.setattr(upload, "STOP_WAIT_S", 0.1)
    b = bench(1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uploader = started(
            b, transport=HttpTransport(f"http://127.0.0.1:{silent.getsockname()[1]}", None)
        )
        assert wait_until(lambda: uploader.counters.attempts == 1)
        start_s = time.monotonic()
        uploader.stop(2.0)
        b.outbox.close(2.0)
        assert time.monotonic() - start_s < 1.5
    assert b.outbox.counters().pending == 1


DEVICES = 10_000


def peak_share(times: list[float], window_s: float, bin_s: float) -> float:
    """Return the calls in the busiest `bin_s` seconds over the mean of the window."""
    counts = Counter(int(time_s // bin_s) for time_s in times)
    return max(counts.values()) / (len(times) / (window_s / bin_s))


@pytest.mark.parametrize("outage_s", [3600, 4 * 3600])
def test_devices_return_spread_out_after_an_outage_of_the_collector(outage_s):
    """After an outage no minute sees more than three times the mean rate, and all are back within
    an hour.
    """
    times = []
    for device in range(DEVICES):
        backoff = Backoff(random.Random(device))
        now_s = random.Random(-device).uniform(0, 60)
        while now_s < outage_s:
            now_s += backoff.failure_delay_s()
        times.append(now_s - outage_s)
    assert peak_share(times, 3600, 60) <= 3
    assert max(times) <= 3600


def test_devices_return_spread_out_when_their_network_is_back():
    """In the minute after an hour offline no second sees more than three times the mean rate."""
    times = []
    for device in range(DEVICES):
        backoff = Backoff(random.Random(device))
        now_s = random.Random(-device).uniform(0, 60)
        while now_s < 3600:
            now_s += backoff.offline_delay_s()
        times.append(now_s - 3600)
    assert peak_share(times, 60, 1) <= 3


def test_devices_that_start_together_call_spread_out():
    """10,000 devices that start in the same instant call over half a minute."""
    times = [Backoff(random.Random(device)).start_delay_s() for device in range(DEVICES)]
    assert peak_share(times, MAX_START_DELAY_S, 1) <= 3


def test_the_thread_waits_for_the_start_delay_once(bench, monkeypatch):
    """The thread waits for the delay that `Backoff` draws before its first batch, and only then."""
    waits = []

    class RecordedEvent(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if timeout is None:
                return super().wait()
            waits.append(timeout)
            return self.is_set()

    b = bench(1)
    rng = FixedShare(0.2 / MAX_START_DELAY_S)
    monkeypatch.setattr(threading, "Event", RecordedEvent)
    uploader = Uploader(b.outbox, b.transport, clock=SystemClock(), rng=rng)
    monkeypatch.undo()
    uploader.start()
    assert wait_until(lambda: bool(b.transport.batches))
    uploader.stop()
    assert waits[:2] == [pytest.approx(0.2), 0.0]
