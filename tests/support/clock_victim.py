"""What runs in a process whose wall clock lies: an engine with its threads, which shows, sees, and is rewarded.

It prints, as one JSON object, the monotonic time of each decision, and what was promised.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

from sanderling import Engine


def live(bundle: str, state: str, url: str, slates: int, pause_s: float, patience_s: float) -> None:
    made, promised, pause = {}, [], threading.Event()
    with Engine.open(bundle, state, url, "secret", window_s=3600) as engine:
        for number in range(slates):
            slate = engine.recommend("anna", k=3)
            made[slate.decision] = time.monotonic()
            engine.seen(slate)
            if engine.reward(slate, slate[0], 1.0, f"r{number}"):
                promised.append(f"r{number}")
            pause.wait(pause_s)  # libfaketime breaks time.sleep
        deadline = time.monotonic() + patience_s
        while engine.counters()["outbox"].pending and time.monotonic() < deadline:
            engine.flush(5.0)
        counters = engine.counters()
        report = {
            "made": made,
            "promised": promised,
            "wall": time.time(),
            "lost": counters["outbox"].lost,
        }
        print(json.dumps(report | {"pending": counters["outbox"].pending}))


if __name__ == "__main__":
    bundle, state, url, *numbers = sys.argv[1:]
    live(str(Path(bundle)), state, url, int(numbers[0]), float(numbers[1]), float(numbers[2]))
