"""The collector's memory of ids is of a fixed size, forgets, and is never wrong."""

from __future__ import annotations

import random

import numpy as np
import pytest

from sanderling_trainer.collector import recent_ids as module
from sanderling_trainer.collector.recent_ids import PLACES, ROW, RecentIds

pytestmark = pytest.mark.lab


def ids(rng: random.Random, count: int, bits: int = 128) -> list[str]:
    return [f"{rng.getrandbits(bits):032x}" for _ in range(count)]


def wrong(memory: RecentIds, rng: random.Random) -> int:
    """Return how many answers, of thousands on crowded places, are not what was last told under the id."""
    told: dict[str, int] = {}
    found = 0
    for _ in range(300):
        some = dict.fromkeys(
            ids(rng, 8, 6) + ids(rng, 2) + [f"{rng.getrandbits(4) << 64 | 1:032x}"], 0
        )
        found += sum(told.get(id) != body for id, body in memory.get(some).items())
        some = {id: rng.choice([0, 2**32 - 1, rng.getrandbits(32)]) for id in some}
        memory.add(some)
        told.update(some)
    return found


def test_what_is_remembered_is_what_was_told():
    """Whatever drives out whatever, an id is forgotten or known with its last checksum, the id of zeros too."""
    assert wrong(RecentIds(places=5), random.Random(0)) == 0
    assert RecentIds().get(["0" * 32]) == {}


def test_the_comparison_finds_a_memory_that_looks_at_half_an_id(monkeypatch):
    """A memory that compares only the second half of an id, which two ids may share, is found out."""
    keys = module._keys
    monkeypatch.setattr(module, "_keys", lambda ids: keys(ids) * np.array([0, 1], np.uint64))
    assert wrong(RecentIds(places=5), random.Random(0))


def test_the_last_ids_are_known_and_the_size_is_fixed():
    """Of the last ids nearly all are known, of those before as many others as places a third; the size is the same."""
    memory, rng = RecentIds(places=1000), random.Random(0)
    batches = [ids(rng, 50) for _ in range(40)]
    for batch in batches:
        memory.add(dict.fromkeys(batch, 7))
    assert len(memory.get(batches[-1])) >= 45
    assert 0.2 < len(memory.get([id for batch in batches[18:22] for id in batch])) / 200 < 0.55
    assert memory._rows.nbytes == 1000 * ROW.itemsize
    assert PLACES * ROW.itemsize == 12 * 2**20


def test_nothing_is_asked_and_nothing_told():
    """An empty batch is no special case."""
    memory = RecentIds(places=5)
    memory.add({})
    assert memory.get([]) == {}
