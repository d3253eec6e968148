"""Throughput and latency of a collector that answers when events are durable.

Server and client share the machine. A batch has 50 events (20 decisions of 10 slots, 20 outcomes,
10 observations), and is answered after its fsync. The peer is a plain Starlette endpoint that
appends JSON lines and flushes them, in the same run with the same batches: it does not validate,
give verdicts, or deduplicate. The physical limit: an answer costs at least one flush of the disk,
which concurrent requests share; `flush_ms` is the time of one flush here. `stored` counts the lines
found on the disk afterwards, and must be at least the answered ones.

    python -m bench collect [SECONDS] [CONNECTIONS]        (default 20 8)
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.collecting.client import EVENTS, Answers, bodies, load, wait_until_listening
from sanderling_trainer.demo.processes import free_port
from sanderling_trainer.event_log import segment_format
from sanderling_trainer.event_log.object_store import LocalObjectStore

BATCHES_S = 1500  # more than any server here answers
WARM_UP_S = 3.0


def run(arguments: list[str]) -> dict[str, Any]:
    """Return events/s, p50 and p99 in ms, and the growth of memory, of the collector and of its
    peer.
    """
    seconds = float(arguments[0]) if arguments else 20.0
    connections = int(arguments[1]) if arguments[1:] else 8
    batches = bodies(round((seconds + WARM_UP_S) * BATCHES_S))
    collect = [sys.executable, "-m", "sanderling", "collect", "--token", "secret", "--store"]
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as folder:
        result: dict[str, Any] = {
            "batch": EVENTS,
            "connections": connections,
            "flush_ms": _flush_ms(Path(folder)),
        }
        ours = Path(folder) / "ours"
        peer = Path(folder) / "peer"
        peer.mkdir()
        result["collector"] = _case([*collect, str(ours), "--port"], batches, connections, seconds)
        result["collector"]["stored"] = _stored(ours)
        command = [sys.executable, "-m", "bench.collecting.peer", str(peer)]
        result["starlette peer"] = _case(command, batches, connections, seconds)
        result["starlette peer"]["stored"] = (peer / "events.jsonl").read_bytes().count(b"\n")
    result["collector / peer"] = (
        result["collector"]["events/s"] / result["starlette peer"]["events/s"]
    )
    return result


def _case(
    command: list[str], batches: list[bytes], connections: int, seconds: float
) -> dict[str, Any]:
    port = free_port()
    process = subprocess.Popen([*command, str(port)])
    try:
        wait_until_listening(port)
        warm_up = load(port, batches, connections, WARM_UP_S)
        rss_before = psutil.Process(process.pid).memory_info().rss
        started = time.perf_counter()
        answers = load(port, batches[len(warm_up.status) :], connections, seconds)
        spent = time.perf_counter() - started
        grown = psutil.Process(process.pid).memory_info().rss - rss_before
    finally:
        process.terminate()
        process.wait(20)
    result = _figures(answers, spent)
    result["answered"] += EVENTS * warm_up.status.count(200)
    result["rss MiB/min"] = grown / 2**20 / spent * 60
    print(f"{command[2]}: {result}", file=sys.stderr)
    return result


def _figures(answers: Answers, spent: float) -> dict[str, Any]:
    n_answered = answers.status.count(200)
    ms = np.array(answers.seconds) * 1000
    return {
        "events/s": EVENTS * n_answered / spent,
        "p50_ms": float(np.percentile(ms, 50)),
        "p99_ms": float(np.percentile(ms, 99)),
        "answered": EVENTS * n_answered,
        "refused": len(answers.status) - n_answered,
    }


def _stored(folder: Path) -> int:
    store = LocalObjectStore(folder)
    return sum(
        len(segment_format.unpack(store.get(name))) for name in store.names(segment_format.SEGMENTS)
    )


def _flush_ms(folder: Path) -> float:
    """Return the median time of a small append and its flush."""
    spent = []
    with (folder / "flush").open("wb") as file:
        for _ in range(100):
            started = time.perf_counter()
            file.write(bytes(2**14))
            file.flush()
            os.fsync(file.fileno())
            spent.append((time.perf_counter() - started) * 1000)
    return float(np.median(spent))
