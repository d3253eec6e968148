"""An index whose biases change for one query: exact while they do, and as before afterwards."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.kernels import loader
from sanderling.kernels.layout import FOUR_BITS, SEVEN_BITS
from sanderling.ranking.index import Int8Index
from sanderling.ranking.rebiased_index import RebiasedIndex
from tests.support.naive import naive_top

N_QUERIES = 8


def problem(seed: int, n: int, d: int):
    """Return rows, scales, biases, a query, and distinct rows with what raises their biases."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-3, 4, (n, d)).astype(np.int8)
    scale = rng.choice(np.array([0.5, 1.0, 2.0], np.float32), n)
    bias = rng.choice(np.array([0.0, 0.25, -3.0], np.float32), n)
    raised = np.flatnonzero(rng.random(n) < rng.random())
    by = rng.choice([0.0, 1 / 3, 7.0, 1e6], len(raised))
    return rows, scale, bias, rng.normal(size=d).astype(np.float32), raised, by


@pytest.mark.parametrize("bits", [FOUR_BITS, SEVEN_BITS])
@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32), st.integers(1, 200), st.integers(1, 40), st.integers(1, 210))
def test_raised_rows_are_ranked_exactly_and_lowered_again(bits, seed, n, d, k):
    """Rows and scores are those of a table with the raised biases, then those without."""
    rows, scale, bias, query, raised, by = problem(seed, n, d)
    higher = bias.copy()
    higher[raised] += by.astype(np.float32)
    index = Int8Index(rows, scale, bias.copy(), bits=bits)
    for _ in range(2):
        undo = index.raise_biases(raised, by.astype(np.float32))
        result = index.top(query, k)
        expected, scores = naive_top(rows, scale, higher, query, k, set())
        assert (result.rows.tolist(), result.scores.tolist()) == (expected, scores)

        undo()
        result = index.top(query, k)
        expected, scores = naive_top(rows, scale, bias, query, k, set())
        assert (result.rows.tolist(), result.scores.tolist()) == (expected, scores)
        assert index.max_bias == np.abs(bias).max()


def test_threads_do_not_see_each_others_biases():
    """Concurrent queries have the same answers as one after the other, and the index of which the
    biases were copied stays as it was."""
    rows, scale, bias, query, _, _ = problem(0, 5000, 16)
    source = Int8Index(rows, scale, bias)
    before = source.top(query, 20)
    index = RebiasedIndex(source)
    parts = np.array_split(np.random.default_rng(1).permutation(5000), N_QUERIES)

    def search(part):
        found = index.top(query, 20, part, np.full(len(part), 3.0), None)
        return found.rows.tolist(), found.scores.tolist()

    expected = list(map(search, parts))
    with ThreadPoolExecutor(N_QUERIES) as threads:
        assert list(threads.map(search, parts * 20)) == expected * 20
    after = source.top(query, 20)
    assert before.rows.tolist() == after.rows.tolist()
    assert before.scores.tolist() == after.scores.tolist()


def test_without_kernels_it_is_the_same():
    """numpy gives the same bits as the kernels that are installed."""
    if loader.chosen() is None:
        pytest.skip("there are no kernels here")
    rows, scale, bias, query, raised, by = problem(3, 700, 16)
    results = []
    for source in (None, "numpy"):
        index = Int8Index(rows, scale, bias.copy(), source)
        index.raise_biases(raised, by.astype(np.float32))
        results.append(index.top(query, 50))
    assert results[0].rows.tolist() == results[1].rows.tolist()
    assert results[0].scores.tolist() == results[1].scores.tolist()
