"""The top-k kernels: against float64, against each other, and on ties, exclusions and extremes."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling import topk
from tests.naive import naive_top

KERNELS = {"numpy": topk.numpy_top, "interpreted": topk._kernel_of(topk.scan)}
with contextlib.suppress(ImportError):
    KERNELS["numba"] = topk._numba_kernel()


def problem(seed: int, n: int, d: int, levels: int = 127):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-levels, levels + 1, (n, d)).astype(np.int8)
    scale = rng.choice(np.array([0.5, 1.0, 2.0], np.float32), n)
    bias = rng.choice(np.array([0.0, 0.25], np.float32), n)
    query = rng.normal(size=d).astype(np.float32)
    return rows, scale, bias, query, rng.random(n) < 0.2


@pytest.mark.parametrize("name", KERNELS)
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 20), st.integers(1, 70), st.sampled_from([1, 3, 127]))
def test_every_kernel_equals_the_naive_one(name, seed, n, d, k, levels):
    """Rows and scores are bit for bit those of a full sort in exact integers, ties by ascending row."""
    rows, scale, bias, query, excluded = problem(seed, n, d, levels)
    codes, step = topk.quantize_query(query)
    found, scores = KERNELS[name](rows, scale, bias, codes, step, k, excluded)
    expected, expected_scores = naive_top(rows, scale, bias, codes, step, k, excluded)
    assert found.tolist() == expected
    assert scores.tolist() == expected_scores


@pytest.mark.parametrize("name", KERNELS)
def test_ties_go_to_the_earlier_row(name):
    """With all scores equal, the first rows come, in order."""
    rows, flat = np.ones((30, 4), np.int8), np.ones(30, np.float32)
    codes, step = topk.quantize_query(np.ones(4, np.float32))
    found, _ = KERNELS[name](rows, flat, flat, codes, step, 7, np.zeros(30, np.bool_))
    assert found.tolist() == list(range(7))


@pytest.mark.parametrize("name", KERNELS)
def test_all_excluded_gives_nothing(name):
    """When nothing is eligible the answer is empty, not an error."""
    rows, scale, bias, query, _ = problem(1, 20, 8)
    codes, step = topk.quantize_query(query)
    found, scores = KERNELS[name](rows, scale, bias, codes, step, 5, np.ones(20, np.bool_))
    assert found.size == scores.size == 0


@pytest.mark.parametrize("name", KERNELS)
def test_the_largest_products_do_not_overflow(name):
    """Rows of ±127 and a query at its peak sum exactly, at every dimension that int32 must hold."""
    for d in (1, 64, 512, 513, 1024, 4096):
        rows = np.full((2, d), 127, np.int8)
        rows[1] = -127
        codes, step = topk.quantize_query(np.ones(d, np.float32))
        flat, zero = np.ones(2, np.float32), np.zeros(2, np.float32)
        found, scores = KERNELS[name](rows, flat, zero, codes, step, 2, np.zeros(2, np.bool_))
        assert found.tolist() == [0, 1]
        assert scores[0] == pytest.approx(127.0 * d, rel=1e-6)
        assert scores[1] == -scores[0]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 32))
def test_scores_are_within_the_rounding_bound_of_float64(seed, n, d):
    """A score differs from float64 by at most half a query step times the row's absolute sum."""
    rows, scale, bias, query, _ = problem(seed, n, d)
    codes, step = topk.quantize_query(query)
    found, scores = topk.numpy_top(rows, scale, bias, codes, step, n, np.zeros(n, np.bool_))
    exact = (rows.astype(np.float64) @ query.astype(np.float64)) * scale + bias
    bound = 0.5 * step * np.abs(rows.astype(np.float64)).sum(axis=1) * scale + 1e-9
    assert (np.abs(scores - exact[found]) <= bound[found]).all()


@pytest.mark.parametrize("query", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_a_query_without_meaning_scores_by_bias_alone(query):
    """A zero or non-finite query gives every item its bias, never NaN."""
    codes, step = topk.quantize_query(np.array(query, np.float32))
    bias = np.array([1.0, 3.0, 2.0], np.float32)
    found, scores = topk.numpy_top(
        np.ones((3, 2), np.int8), np.ones(3, np.float32), bias, codes, step, 3, np.zeros(3, np.bool_)
    )
    assert found.tolist() == [1, 2, 0]
    assert scores.tolist() == [3.0, 2.0, 1.0]


def test_rows_are_rounded_to_nearest():
    """Dequantised rows are within half a step of the vectors, and a zero vector stays zero."""
    vectors = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    vectors[3] = 0.0
    rows, scale = topk.quantize_rows(vectors)
    assert (np.abs(rows * scale[:, None] - vectors) <= scale[:, None] * 0.5 + 1e-6).all()
    assert not rows[3].any()
    assert np.abs(rows).max() == 127


def test_an_unknown_kernel_is_refused(monkeypatch):
    """`SANDERLING_KERNELS` with another name raises ValueError that names the choices."""
    monkeypatch.setenv("SANDERLING_KERNELS", "fortran")
    with pytest.raises(ValueError, match="numba or numpy"):
        topk.kernel.__wrapped__()
