"""How an app's event loop ticks while it rewards: on a disk that works, and on one that does not.

A tick asks the loop for 1 ms; the share of those that come after more than 5 ms is what an app's
other requests feel. Four users reward an item of their slates about 50 times a second each. Lower
bound: the same loop with nothing to do, on the same busy machine.

    python -m bench loop_ticks [--seconds 10]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from bench.serving.random_bundle import write_random_bundle
from sanderling import Engine, Receipt, Slate

TICK_S = 0.001
LATE_S = 0.005
PAUSE_S = 0.02
USERS = 4

Reward = Callable[[Engine, Slate, int], Awaitable[Receipt | None]]


async def _nothing(engine: Engine, slate: Slate, slot: int) -> None:
    pass


async def _awaited(engine: Engine, slate: Slate, slot: int) -> Receipt:
    return await engine.areward(slate, slate[slot], 1.0)


async def _blocking(engine: Engine, slate: Slate, slot: int) -> Receipt:
    return engine.reward(slate, slate[slot], 1.0)


def run(arguments: list[str]) -> dict[str, Any]:
    """Return for each case the share of late ticks, their p99 in ms, and how rewards ended."""
    parser = argparse.ArgumentParser(prog="bench loop_ticks")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args(arguments)
    cases: dict[str, tuple[Reward, bool]] = {
        "nothing to do": (_nothing, False),
        "areward": (_awaited, False),
        "reward": (_blocking, False),
        "areward, file locked": (_awaited, True),
        "reward, file locked": (_blocking, True),
    }
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_random_bundle(Path(folder) / "bundle", items=2000)
        for number, (name, (reward, locked)) in enumerate(cases.items()):
            state = Path(folder) / str(number)
            results[name] = _measure(Path(folder) / "bundle", state, reward, locked, options)
            print(f"{name:<24}{results[name]}", file=sys.stderr)
    return results


def _measure(
    bundle: Path, state: Path, reward: Reward, locked: bool, options: argparse.Namespace
) -> dict[str, Any]:
    with Engine.open(bundle, state) as engine:
        slates = [engine.recommend(f"user {number}") for number in range(USERS)]
        with _locked(state, locked):
            ticks, ends = asyncio.run(_app(engine, slates, reward, options.seconds))
    return {
        "ticks": len(ticks),
        "late_percent": round(100 * float(np.mean(np.array(ticks) > LATE_S)), 2),
        "p99_ms": round(1000 * float(np.quantile(ticks, 0.99)), 1),
        "rewards": dict(ends),
    }


@contextmanager
def _locked(state: Path, locked: bool) -> Iterator[None]:
    """Hold the lock of the outbox's file, as a disk that hangs would."""
    if not locked:
        yield
        return
    other = apsw.Connection(str(state / "outbox.db"))
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


async def _app(
    engine: Engine, slates: list[Slate], reward: Reward, seconds: float
) -> tuple[list[float], Counter[str]]:
    end = time.perf_counter() + seconds
    ticks: list[float] = []
    ends: Counter[str] = Counter()

    async def tick() -> None:
        while time.perf_counter() < end:
            started = time.perf_counter()
            await asyncio.sleep(TICK_S)
            ticks.append(time.perf_counter() - started)

    async def rewarding(slate: Slate) -> None:
        slot = 0
        while time.perf_counter() < end:
            await asyncio.sleep(PAUSE_S)
            receipt = await reward(engine, slate, slot % len(slate))
            slot += 1
            if receipt is not None:
                ends["stored" if receipt else "pending" if receipt.pending else "refused"] += 1

    await asyncio.gather(tick(), *map(rewarding, slates))
    return ticks, ends
