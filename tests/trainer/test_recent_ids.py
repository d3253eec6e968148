"""The collector's cache of recent ids has a fixed size, forgets, and never returns a wrong
checksum.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from sanderling_trainer.collector import recent_ids as module
from sanderling_trainer.collector.recent_ids import ROW, SLOTS, RecentIds

pytestmark = pytest.mark.lab


def ids(rng: random.Random, count: int, bits: int = 128) -> list[str]:
    return [f"{rng.getrandbits(bits):032x}" for _ in range(count)]


def count_wrong(cache: RecentIds, rng: random.Random) -> int:
    """Return how many of thousands of answers, from crowded slots, are not what was last added
    under the id.
    """
    last: dict[str, int] = {}
    wrong = 0
    for _ in range(300):
        # Few different ids, new ids, and ids that share their second half with others.
        some = ids(rng, 8, 6) + ids(rng, 2) + [f"{rng.getrandbits(4) << 64 | 1:032x}"]
        wrong += sum(last.get(id) != checksum for id, checksum in cache.get(some).items())
        added = {id: rng.choice([0, 2**32 - 1, rng.getrandbits(32)]) for id in some}
        cache.add(added)
        last.update(added)
    return wrong


def test_an_id_is_forgotten_or_has_its_last_checksum():
    """However ids evict each other, also the id of zeros, no answer is wrong."""
    assert count_wrong(RecentIds(slots=5), random.Random(0)) == 0
    assert RecentIds().get(["0" * 32]) == {}


@pytest.mark.mutant
def test_the_comparison_finds_a_cache_that_compares_half_an_id(monkeypatch):
    """A cache that compares only the second half of an id, which two ids may share, gives wrong
    answers.
    """
    keys_of = module.keys_of
    monkeypatch.setattr(module, "keys_of", lambda ids: keys_of(ids) * np.array([0, 1], np.uint64))
    assert count_wrong(RecentIds(slots=5), random.Random(0))


def test_recent_ids_are_cached_and_the_size_is_fixed():
    """The last ids are nearly all cached, those before as many others as slots to a third; the size
    is the same.
    """
    cache = RecentIds(slots=1000)
    rng = random.Random(0)
    batches = [ids(rng, 50) for _ in range(40)]
    for batch in batches:
        cache.add(dict.fromkeys(batch, 7))
    earlier = [id for batch in batches[18:22] for id in batch]
    assert len(cache.get(batches[-1])) >= 45
    assert 0.2 < len(cache.get(earlier)) / 200 < 0.55
    assert cache.nbytes == 1000 * ROW.itemsize
    assert SLOTS * ROW.itemsize == 12 * 2**20


def test_an_empty_batch_is_allowed():
    """Adding no ids and asking for none are no special cases."""
    cache = RecentIds(slots=5)
    cache.add({})
    assert cache.get([]) == {}
