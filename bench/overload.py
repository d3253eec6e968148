"""A collector at five times the load that it can take.

First its capacity is measured over eight connections, each waiting for its answers. Then two
processes send batches of 50 at five times that rate, whatever the answers are, and resend what was
refused without heeding Retry-After. Server and load share the machine: `offered` is what was really
sent. `lost` counts answered events that are not on the disk; `normal_again_s` is the time after the
load until a second passes without a refusal.

    python -m bench overload [SECONDS] [TIMES] [CONNECTIONS]        (default 30 5 4000)
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil

from bench.collecting import source
from bench.collecting.client import EVENTS, load, wait_until_listening
from bench.collecting.flood import Flood
from sanderling_trainer.demo.processes import free_port
from sanderling_trainer.event_log import segment_format
from sanderling_trainer.event_log.object_store import LocalObjectStore

CAPACITY_S, PROCESSES = 5.0, 2
ID = re.compile(rb'"event":{"type":"[a-z]+","id":"([0-9a-f]{32})"')


def run(arguments: list[str]) -> dict[str, Any]:
    """Return the statuses, the latencies of answered batches, the lost events, and the memory."""
    given = (*arguments, *("30", "5", "4000")[len(arguments) :])
    seconds, times, connections = map(float, given)
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as folder:
        port = free_port()
        collect = [sys.executable, "-m", "sanderling", "collect", "--token", "secret"]
        process = subprocess.Popen([*collect, "--store", folder, "--port", str(port)])
        try:
            wait_until_listening(port)
            capacity = _capacity(port)
            watched = psutil.Process(process.pid)
            result: dict[str, Any] = {
                "batches/s": capacity,
                "rss_before_MiB": watched.memory_info().rss / 2**20,
            }
            with PeakMemory(watched) as peak:
                floods = _floods(port, capacity * times, seconds, connections)
            result |= _figures(floods, seconds) | {"rss_peak_MiB": peak.bytes / 2**20}
            result["normal_again_s"] = _seconds_until_normal(port)
        finally:
            process.terminate()
            process.wait(20)
        result["lost"] = count_lost(Path(folder), floods)
    return result


class PeakMemory:
    """The peak memory of a process, sampled ten times a second."""

    def __init__(self, process: psutil.Process) -> None:
        self.bytes = 0
        self._process = process
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(0.1):
            self.bytes = max(self.bytes, self._process.memory_info().rss)


def _capacity(port: int) -> float:
    bodies = (body for _, body in source.batches(0))
    return load(port, bodies, 8, CAPACITY_S).status.count(200) / CAPACITY_S


def _floods(port: int, rate: float, seconds: float, connections: float) -> list[Flood]:
    rate_of_each = f"{rate / PROCESSES:.0f}"
    connections_of_each = f"{connections / PROCESSES:.0f}"
    command = [sys.executable, "-m", "bench.collecting.flood", str(port)]
    command += [rate_of_each, str(seconds), connections_of_each]
    started = [
        subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE)
        for seed in range(1, PROCESSES + 1)
    ]
    return [
        msgspec.json.decode(process.communicate()[0], type=Flood, strict=False)
        for process in started
    ]


def _figures(floods: list[Flood], seconds: float) -> dict[str, Any]:
    statuses = sum((Counter(flood.status) for flood in floods), Counter[int]())
    ms = np.array([spent for flood in floods for spent in flood.seconds]) * 1000
    return {
        "offered batches/s": sum(statuses.values()) / seconds,
        "status": {str(code): count for code, count in sorted(statuses.items())},
        "without Retry-After": sum(flood.without_retry_after for flood in floods),
        "without a free connection": sum(flood.without_connection for flood in floods),
        "without an answer": sum(flood.unanswered for flood in floods),
        "answered events/s": EVENTS * statuses[200] / seconds,
        "p50_ms": float(np.percentile(ms, 50)),
        "p99_ms": float(np.percentile(ms, 99)),
    }


def _seconds_until_normal(port: int) -> float:
    """Return the seconds until one passes in which no request of eight connections is refused."""
    started = time.perf_counter()
    bodies = (body for _, body in source.batches(9))
    while time.perf_counter() - started < 30:
        now = time.perf_counter() - started
        if set(load(port, bodies, 8, 1.0).status) == {200}:
            return now
    return float("inf")


def count_lost(folder: Path, floods: list[Flood]) -> int:
    """Return how many answered events are in no segment."""
    store = LocalObjectStore(folder)
    stored = {
        id
        for name in store.names(segment_format.SEGMENTS)
        for row in segment_format.unpack(store.get(name))
        for id in ID.findall(row)
    }
    answered = [
        id.encode() for flood in floods for prefix in flood.answered for id in source.ids(prefix)
    ]
    return sum(id not in stored for id in answered)
