"""Threads recommend while bundles are swapped: no errors, no mixed slates, no leaks."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from pathlib import Path

import pytest

from sanderling import Engine
from tests.support.bundles import write_bundle
from tests.support.engines import scorer_of

THREADS = 8


def resident_kb() -> int:
    """Return the process's resident memory, in kB."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])


def serve(engine: Engine, each: int, swaps: int) -> tuple[list[str], list[tuple[int, int]]]:
    """Let threads recommend while bundles are swapped; return faults, and (slates, resident kB)
    over time."""
    faults: list[str] = []
    served = [0] * THREADS

    def recommend(thread: int) -> None:
        for number in range(each):
            try:
                slate = engine.recommend(
                    f"user-{thread}-{number % 50}", k=10, exclude=["item-1", "item-2"]
                )
                shown = {item.id for item in slate}
                if (
                    len(shown) != 10
                    or shown & {"item-1", "item-2"}
                    or any(not 0 < i.marginal <= 1 for i in slate)
                ):
                    faults.append(f"wrong slate {slate}")
            except Exception as error:
                faults.append(repr(error))
            served[thread] = number + 1

    threads = [threading.Thread(target=recommend, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    memory = []
    for swap in range(swaps):
        while sum(served) < THREADS * each * swap // swaps:
            time.sleep(0.001)
        engine.rollback()
        memory.append((sum(served), resident_kb()))
    for thread in threads:
        thread.join()
    return faults, memory


def test_slates_are_whole_while_the_bundle_is_swapped(tmp_path):
    """Eight threads get complete slates of ten allowed items while the bundle is reopened."""
    write_bundle(tmp_path / "bundle", items=3000)
    with Engine.open(tmp_path / "bundle") as engine:
        faults, memory = serve(engine, each=60, swaps=5)
    assert faults == []
    assert len(memory) == 5


@pytest.mark.soak
def test_nothing_leaks(tmp_path):
    """In the second half of 400,000 slates and 100 swaps memory grows by at most 1 kB per 1,000
    slates."""
    write_bundle(tmp_path / "bundle", items=3000)
    with Engine.open(tmp_path / "bundle") as engine:
        faults, memory = serve(engine, each=50_000, swaps=100)
    assert faults == []
    half = memory[50:]
    slates, kilobytes = half[-1][0] - half[0][0], half[-1][1] - half[0][1]
    assert kilobytes <= slates / 1000, f"{kilobytes} kB over {slates} slates: {half[::10]}"


def test_a_replaced_bundle_is_freed_at_once(tmp_path):
    """A replaced scorer is freed without the garbage collector, so no request waits for a
    collection."""
    write_bundle(tmp_path / "bundle")
    with Engine.open(tmp_path / "bundle") as engine:
        for item in engine.recommend("anna", k=5):
            engine.observe("anna", item.id)
        replaced = weakref.ref(scorer_of(engine))
        engine.forget_user("anna")  # also forgets the decisions, which hold their scorer
        gc.disable()
        try:
            engine.rollback()
            assert replaced() is None
        finally:
            gc.enable()
