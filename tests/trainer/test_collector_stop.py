"""Stopping a collector, by SIGTERM or SIGKILL, loses no event that it answered."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from pathlib import Path

import pytest

from sanderling.events import codec
from sanderling.upload.transport import HttpTransport
from sanderling_trainer.collector import server as collector
from sanderling_trainer.event_log.reader import read_segments
from tests.support.collector_life import DEVICES, Collector, Device, send_until, wait_for_answers
from tests.support.crash_statistics import CollectorStatistics, count_collector
from tests.support.fakes import EventFactory
from tests.support.servers import events, packed, serving
from tests.support.waiting import wait_until

pytestmark = pytest.mark.lab

STORE = """
import threading, time
from pathlib import Path
from sanderling_trainer.event_log.object_store import LocalObjectStore
from sanderling_trainer.collector import server as collector
put = LocalObjectStore.put
def slow(self, name, data):
    time.sleep(0.01)
    put(self, name, data)
def hangs(self, name, data):
    collector.FINISH_COMMITS_S = 0.5
    Path(self.root, "hangs").touch()
    time.sleep(60)
def answer_first(self, name, data):
    threading.Timer(60, put, (self, name, data)).start()
LocalObjectStore.put = {0}
if "{0}" == "hangs":
    collector.FINISH_REQUESTS_S = 1
"""


def stop_under_load(
    folder: Path, signal_: signal.Signals, store: str = "slow"
) -> tuple[set[str], set[str]]:
    """Stop a collector in another process while four clients send; return the ids answered `ok`,
    and those stored.
    """
    process, port = serving(folder, STORE.format(store))
    answered: set[str] = set()
    stopped = threading.Event()

    def client(number: int) -> None:
        make = EventFactory(start=number << 32 | 1)
        transport = HttpTransport(f"http://127.0.0.1:{port}/v1", "secret", timeout_s=5)
        while not stopped.is_set():
            batch = [make.observation(seq=1) for _ in range(20)]
            try:
                response = transport.post(
                    codec.pack(map(codec.encode, batch)), {"content-encoding": "zstd"}
                )
            except OSError:
                return
            if response.status == 200:
                answered.update(
                    row["id"]
                    for row in json.loads(response.body)["verdicts"]
                    if row["verdict"] == "ok"
                )

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: bool(answered), 20)
    time.sleep(0.1)
    process.send_signal(signal_)
    process.wait(10)
    stopped.set()
    for thread in threads:
        thread.join()
    log = read_segments(str(folder))
    return answered, {event.id for events in log.events.values() for event in events}


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGKILL])
def test_answered_events_survive_a_stop(tmp_path, signal_):
    """After SIGTERM or SIGKILL under load every event that was answered `ok` is in a segment."""
    answered, stored = stop_under_load(tmp_path, signal_)
    assert answered
    assert answered <= stored


@pytest.mark.soak
def test_fifty_stops_lose_nothing(tmp_path):
    """After fifty stops, alternately SIGTERM and SIGKILL, no answered event is missing; no stop
    takes over 10 s.
    """
    for turn in range(50):
        answered, stored = stop_under_load(
            tmp_path / str(turn), [signal.SIGTERM, signal.SIGKILL][turn % 2]
        )
        assert answered
        assert answered <= stored


@pytest.mark.mutant
def test_the_harness_finds_a_collector_that_answers_first(tmp_path):
    """A kill reveals a collector that answers before its segment is written."""
    answered, stored = stop_under_load(tmp_path, signal.SIGKILL, "answer_first")
    assert not answered <= stored


def test_a_hanging_store_does_not_keep_the_server_from_stopping(tmp_path):
    """On SIGTERM while the store hangs the process ends after its two waits, and the hanging batch
    is not answered.

    The two waits leave two of the ten seconds that a stop may take.
    """
    process, port = serving(tmp_path, STORE.format("hangs"))
    transport = HttpTransport(f"http://127.0.0.1:{port}/v1", "secret", timeout_s=15)
    answers: list[int] = []

    def send() -> None:
        with contextlib.suppress(OSError):
            answers.append(transport.post(packed(*events(1)), {"content-encoding": "zstd"}).status)

    client = threading.Thread(target=send)
    client.start()
    assert wait_until((tmp_path / "hangs").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) is not None
    client.join()
    assert 200 not in answers
    assert collector.FINISH_REQUESTS_S + collector.FINISH_COMMITS_S <= 8


def sleep_in(
    root: Path, point: str, pause_s: float, timeout_s: float
) -> tuple[CollectorStatistics, int]:
    """Suspend a collector at a point of its commit for `pause_s`, and until each device has timed
    out once.

    Return the statistics, and how many events came twice.
    """
    devices = [Device(number, timeout_s) for number in range(DEVICES)]
    collector = Collector(root, point=point, nth=5, stops=True)

    def sleep() -> None:
        collector.wait_for_stop()
        before = [device.timeouts for device in devices]
        time.sleep(pause_s)
        assert wait_until(
            lambda: all(
                device.timeouts > count for device, count in zip(devices, before, strict=True)
            )
        )
        collector.go_on()
        wait_for_answers(devices)

    try:
        send_until(devices, collector, sleep)
    finally:
        collector.kill()
    return count_collector(root, devices), read_segments(str(root)).duplicates


@pytest.mark.parametrize(
    "point", ["between writes segments file", "after rename segments file", "before answer"]
)
def test_a_collector_that_sleeps_in_its_commit_loses_nothing(tmp_path, point):
    """After SIGSTOP in a commit, longer than devices wait, and SIGCONT all events are read once,
    and it serves again.
    """
    statistics, duplicates = sleep_in(tmp_path, point, pause_s=0, timeout_s=0.2)
    assert statistics.answered
    assert duplicates
    statistics.check()


@pytest.mark.soak
@pytest.mark.parametrize(
    "point", ["between writes segments file", "after rename segments file", "before answer"]
)
def test_a_collector_that_sleeps_for_half_a_minute_loses_nothing(tmp_path, point):
    """The same for 30 s, with the timeout of real devices."""
    statistics, duplicates = sleep_in(tmp_path, point, pause_s=30, timeout_s=10)
    print(
        f"{point}: {statistics.answered} answered events, "
        f"{statistics.lost} lost, {duplicates} came twice"
    )
    statistics.check()
