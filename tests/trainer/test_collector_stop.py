"""Stopping a collector, in good order or not, loses nothing that it answered."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sanderling.contract import events as wire
from sanderling.transport import HttpTransport
from sanderling_trainer.data.segments import read_segments
from sanderling_trainer.fleet.processes import free_port
from tests.fakes import EventFactory
from tests.servers import events, packed, wait_for

pytestmark = pytest.mark.lab

SERVE = """
import sys, threading, time
from sanderling_trainer.data.store import LocalStore
from sanderling_trainer.fleet import collector
put = LocalStore.put
def late(self, name, data):
    time.sleep(0.01)
    put(self, name, data)
def hangs(self, name, data):
    time.sleep(60)
def answer_first(self, name, data):
    threading.Timer(0.05, put, (self, name, data)).start()
LocalStore.put = {"late": late, "hangs": hangs, "answer_first": answer_first}[sys.argv[3]]
collector.serve(sys.argv[1], port=int(sys.argv[2]), token="secret")
"""


def stop_under_load(folder: Path, sign: signal.Signals, store: str = "late") -> tuple[set[str], set[str]]:
    """Stop a collector in another process while four clients send; return the ids answered ok, and those stored."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(folder), str(port), store])
    answered: set[str] = set()
    transport_errors = threading.Event()

    def client(number: int) -> None:
        make = EventFactory(start=number << 32 | 1)
        transport = HttpTransport(f"http://127.0.0.1:{port}/v1", "secret", timeout_s=5)
        while not transport_errors.is_set():
            batch = [make.observation(seq=1) for _ in range(20)]
            try:
                response = transport.post(wire.pack(map(wire.encode, batch)), {"content-encoding": "zstd"})
            except OSError:
                if answered:
                    return
                continue
            if response.status == 200:
                answered.update(row["id"] for row in json.loads(response.body)["verdicts"] if row["verdict"] == "ok")

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while not answered and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.1)
    process.send_signal(sign)
    process.wait(10)
    transport_errors.set()
    for thread in threads:
        thread.join()
    stored = [event.id for found in read_segments(str(folder)).events.values() for event in found]
    return answered, set(stored)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_answered_is_stored_though_the_server_is_stopped(tmp_path, sign):
    """SIGTERM or SIGKILL under load: every event that was answered ok is in a segment (promise P23)."""
    answered, stored = stop_under_load(tmp_path, sign)
    assert answered
    assert answered <= stored


@pytest.mark.soak
def test_fifty_stops_lose_nothing(tmp_path):
    """SIGTERM and SIGKILL in turns, fifty times: nothing that was answered is missing, and no stop takes over 10 s."""
    for turn in range(50):
        answered, stored = stop_under_load(tmp_path / str(turn), [signal.SIGTERM, signal.SIGKILL][turn % 2])
        assert answered
        assert answered <= stored


def test_the_harness_finds_a_collector_that_answers_first(tmp_path):
    """A collector that answers before its segment is written is found out by a kill (P4)."""
    answered, stored = stop_under_load(tmp_path, signal.SIGKILL, "answer_first")
    assert not answered <= stored


def test_a_store_that_hangs_does_not_keep_the_server(tmp_path):
    """SIGTERM while the store hangs: the process ends within ten seconds, and what hung was not answered (P23)."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(tmp_path), str(port), "hangs"])
    transport = HttpTransport(f"http://127.0.0.1:{port}/v1", "secret", timeout_s=15)
    answers: list[int] = []

    def send() -> None:
        with contextlib.suppress(OSError):
            answers.append(transport.post(packed(*events(1)), {"content-encoding": "zstd"}).status)

    wait_for(port)
    client = threading.Thread(target=send)
    client.start()
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    process.wait(15)
    client.join()
    assert time.monotonic() - started <= 10
    assert 200 not in answers
