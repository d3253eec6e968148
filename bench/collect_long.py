"""Growth of a collector's memory in minutes of full load (required: at most 1 MiB a minute).

Eight connections send batches of 50, each waiting for its answer, as in `bench collect`; batches
are generated meanwhile. The cache of recent ids, 12 MiB, is filled little by little in the first
two million events. `MiB/min` is the slope of a straight line through the last two thirds of the
time.

    python -m bench collect_long [SECONDS]        (default 300)
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from bench.collecting import source
from bench.collecting.client import EVENTS, load, wait_until_listening
from sanderling_trainer.demo.processes import free_port

EVERY_S = 5.0


def run(arguments: list[str]) -> dict[str, Any]:
    """Return events/s, p99, the memory in MiB every half minute, and its growth at the end."""
    seconds = float(arguments[0]) if arguments else 300.0
    with tempfile.TemporaryDirectory(dir=".", prefix=".bench-") as folder:
        port = free_port()
        collect = [sys.executable, "-m", "sanderling", "collect", "--token", "secret", "--store"]
        process = subprocess.Popen([*collect, str(Path(folder) / "store"), "--port", str(port)])
        try:
            wait_until_listening(port)
            stopped = threading.Event()
            samples: list[tuple[float, float]] = []
            watcher = threading.Thread(
                target=_watch, args=(psutil.Process(process.pid), samples, stopped)
            )
            watcher.start()
            answers = load(port, (body for _, body in source.batches(0)), 8, seconds)
            stopped.set()
            watcher.join()
        finally:
            process.terminate()
            process.wait(20)
    time_s, rss = np.array(samples).T
    late = time_s >= seconds / 3
    return {
        "events/s": EVENTS * answers.status.count(200) / seconds,
        "refused": len(answers.status) - answers.status.count(200),
        "p99_ms": float(np.percentile(np.array(answers.seconds) * 1000, 99)),
        "rss_MiB": [round(float(mib), 1) for mib in rss[:: round(30 / EVERY_S)]],
        "MiB/min": float(np.polyfit(time_s[late], rss[late], 1)[0] * 60),
    }


def _watch(
    process: psutil.Process, samples: list[tuple[float, float]], stopped: threading.Event
) -> None:
    started = time.perf_counter()
    while not stopped.wait(EVERY_S):
        samples.append((time.perf_counter() - started, process.memory_info().rss / 2**20))
