"""The process with a wrong wall clock: an engine with its threads, which shows slates and takes
rewards.

It prints, as one JSON object, the monotonic time of each decision, and the rewards that it stored.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from sanderling import Engine


def run(bundle: str, state: str, url: str, slates: int, pause_s: float, timeout_s: float) -> None:
    decided_at: dict[str, float] = {}
    stored: list[str] = []
    pause = threading.Event()
    with Engine.open(bundle, state, url, "secret", window_s=3600) as engine:
        for number in range(slates):
            slate = engine.recommend("anna", k=3)
            decided_at[slate.decision] = time.monotonic()
            engine.seen(slate)
            if engine.reward(slate, slate[0], 1.0, f"r{number}", timeout_s=10.0):
                stored.append(f"r{number}")
            pause.wait(pause_s)  # libfaketime breaks time.sleep
        deadline = time.monotonic() + timeout_s
        while engine.counters()["outbox"].pending and time.monotonic() < deadline:
            engine.flush(5.0)
        counters = engine.counters()
        report = {
            "decided_at": decided_at,
            "stored": stored,
            "wall": time.time(),
            "lost": counters["outbox"].lost,
        }
        print(json.dumps(report | {"pending": counters["outbox"].pending}))


if __name__ == "__main__":
    bundle, state, url, *numbers = sys.argv[1:]
    run(str(Path(bundle)), state, url, int(numbers[0]), float(numbers[1]), float(numbers[2]))
