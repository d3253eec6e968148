"""Partial indexes: the results of the whole index, made when that pays, within bounded memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.ranking import partial_indexes
from sanderling.ranking.index import Int8Index
from sanderling.ranking.partial_indexes import PartialIndexes
from sanderling.ranking.search_types import RowMask


@pytest.fixture
def always(monkeypatch):
    """Makes a partial index of any mask, on its first search."""
    monkeypatch.setattr(partial_indexes, "MIN_ROWS", 0)
    monkeypatch.setattr(partial_indexes, "MIN_HIDDEN", 0.0)
    monkeypatch.setattr(partial_indexes, "SCANS_PER_PACK", 0)


def whole(n: int, d: int = 8, levels: int = 3) -> Int8Index:
    """Return an index of random rows, many of which score the same."""
    rng = np.random.default_rng(n)
    rows = rng.integers(-levels, levels + 1, (n, d)).astype(np.int8)
    bias = rng.choice(np.array([0.0, 0.25], np.float32), n)
    return Int8Index(rows, np.ones(n, np.float32), bias)


def random_mask(n: int, seed: int, hidden: float) -> RowMask:
    return RowMask(np.random.default_rng(seed).random(n) < hidden)


def as_lists(found):
    return found.rows.tolist(), found.scores.tolist(), found.eligible


@pytest.mark.usefixtures("always")
@settings(deadline=None, max_examples=150)
@given(
    n=st.integers(1, 300),
    hidden=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    k=st.integers(0, 30),
    seed=st.integers(0, 2**32),
)
def test_results_are_those_of_the_whole_index(n, hidden, k, seed):
    """Rows, order of ties, scores and counts are bit for bit those of a search of all rows,
    whatever is excluded: hidden rows, unknown ones, and some twice."""
    index = whole(n)
    mask = random_mask(n, seed, hidden)
    rng = np.random.default_rng(seed)
    excluded = rng.integers(-1, n + 3, rng.integers(0, 2 * n))
    query = rng.normal(size=8).astype(np.float32)
    partial = PartialIndexes(index)
    expected = as_lists(index.top(query, k, excluded, mask))
    assert as_lists(partial.top(query, k, excluded, mask)) == expected
    assert mask in partial._partial
    assert as_lists(partial.top(query, k, excluded, mask)) == expected


def test_an_index_is_made_once_packing_it_pays(monkeypatch):
    """Neither for a small catalog, nor for a mask that leaves many rows, nor for the first searches
    of one that leaves few; a rule that is asked for once costs no packing."""
    n = 20_000
    index = whole(n)
    partial = PartialIndexes(index)
    query = np.ones(8, np.float32)
    nothing = np.empty(0, np.int64)
    tenth = random_mask(n, 1, 0.9)
    half = random_mask(n, 1, 0.5)

    searches = 0
    while tenth not in partial._partial:
        partial.top(query, 5, nothing, tenth)
        searches += 1
    left = n - tenth.count
    assert searches == -(-partial_indexes.SCANS_PER_PACK * left // tenth.count)
    for _ in range(1000):
        partial.top(query, 1, nothing, half)
    assert list(partial._partial) == [tenth]

    monkeypatch.setattr(partial_indexes, "MIN_ROWS", n + 1)
    small = PartialIndexes(index)
    for _ in range(100):
        small.top(query, 1, nothing, tenth)
    assert not small._partial


@pytest.mark.usefixtures("always")
def test_memory_is_bounded(monkeypatch):
    """The oldest go where another has no room; one that is too large by itself is not made; a mask
    that nobody uses any more is no longer counted."""
    n = 1000
    index = whole(n)
    masks = [random_mask(n, seed, 0.9) for seed in range(5)]
    sizes = [(n - mask.count) * (2 * 8 + 29) for mask in masks]
    monkeypatch.setattr(partial_indexes, "CACHED_BYTES", sum(sizes[-2:]))
    partial = PartialIndexes(index)
    query = np.ones(8, np.float32)
    nothing = np.empty(0, np.int64)
    for mask in masks:
        partial.top(query, 5, nothing, mask)
    assert list(partial._partial) == masks[-2:]

    large = random_mask(n, 0, 0.1)
    partial.top(query, 5, nothing, large)
    assert large not in partial._partial

    monkeypatch.setattr(partial_indexes, "SCANS_PER_PACK", 10**9)
    other = random_mask(n, 7, 0.9)
    partial.top(query, 5, nothing, other)
    assert len(partial._searches) == 1
    del other
    assert not partial._searches


@pytest.mark.usefixtures("always")
def test_threads_share_partial_indexes(monkeypatch):
    """Searches of many threads, between which indexes are made and dropped, are all right."""
    n = 3000
    index = whole(n, levels=127)
    masks = [random_mask(n, seed, 0.9) for seed in range(6)]
    monkeypatch.setattr(partial_indexes, "CACHED_BYTES", 40_000)
    monkeypatch.setattr(partial_indexes, "SCANS_PER_PACK", 20)
    partial = PartialIndexes(index)

    def search(number):
        rng = np.random.default_rng(number)
        query = rng.normal(size=8).astype(np.float32)
        mask = masks[number % len(masks)]
        excluded = rng.integers(0, n, 50)
        found = as_lists(partial.top(query, 20, excluded, mask))
        return found == as_lists(index.top(query, 20, excluded, mask))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(search, range(600)))
