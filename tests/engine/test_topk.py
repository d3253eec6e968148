"""Top-k search: all kernels against exact integers, with ties, exclusions, extremes and threads."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanderling.kernels import cpu, loader
from sanderling.kernels.layout import CHUNK_ROWS, FOUR_BITS, MAX_DEFERRED, SEVEN_BITS
from sanderling.ranking.index import Int8Index
from sanderling.ranking.quantization import quantize_query, quantize_rows
from sanderling.ranking.search_types import RowMask
from tests.support.naive import naive_top


def available() -> list[str]:
    """Return the sources of kernels that this environment has; numpy is always one."""
    sources = ["numpy"]
    for source in ("compiled", "numba"):
        try:
            loader.chosen(source)
        except ImportError:
            continue
        sources.append(source)
    return sources


SOURCES = available()


def problem(seed: int, n: int, d: int, levels: int = 127):
    """Return rows, scales, biases, a query and excluded rows; few levels make many equal scores."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-levels, levels + 1, (n, d)).astype(np.int8)
    scale = rng.choice(np.array([0.5, 1.0, 2.0], np.float32), n)
    bias = rng.choice(np.array([0.0, 0.25, -3.0], np.float32), n)
    query = rng.normal(size=d).astype(np.float32)
    return rows, scale, bias, query, np.flatnonzero(rng.random(n) < 0.2)


def reference(table: Int8Index, query: np.ndarray, k: int, excluded: np.ndarray):
    """Return rows and scores by a full sort, in doubles that hold the integer products exactly."""
    codes, step = quantize_query(query)
    scores = (table.rows.astype(np.float64) @ codes) * table.scale * step + table.bias
    scores[excluded] = -np.inf
    eligible = len(scores) - len(np.unique(excluded))
    order = np.lexsort((np.arange(len(scores)), -scores))[: min(k, eligible)]
    return order.tolist(), scores[order].tolist()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("bits", [FOUR_BITS, SEVEN_BITS])
@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 2**32),
    st.integers(1, 150),
    st.integers(1, 40),
    st.integers(1, 160),
    st.sampled_from([1, 3, 127]),
)
def test_every_kernel_equals_the_naive_search(source, bits, seed, n, d, k, levels):
    """Rows and scores are bit for bit those of a full sort in exact integers."""
    rows, scale, bias, query, excluded = problem(seed, n, d, levels)
    result = Int8Index(rows, scale, bias, source, bits).top(query, k, excluded)
    expected, scores = naive_top(rows, scale, bias, query, k, set(excluded.tolist()))
    assert result.rows.tolist() == expected
    assert result.scores.tolist() == scores
    assert result.eligible == n - len(excluded)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("bits", [FOUR_BITS, SEVEN_BITS])
@pytest.mark.parametrize("k", [1, 10, 100, 1000, 9000])
@pytest.mark.parametrize(("n", "d"), [(CHUNK_ROWS + 1, 16), (3 * CHUNK_ROWS - 7, 33), (20_000, 64)])
def test_tables_of_several_chunks_are_searched_exactly(source, bits, n, d, k):
    """Where bounds decide which rows are scored, none of the k best is missed."""
    rng = np.random.default_rng(n + k)
    vectors = (rng.normal(size=(n, d)) * rng.lognormal(0, 0.6, (n, 1))).astype(np.float32)
    rows, scale = quantize_rows(vectors)
    table = Int8Index(rows, scale, rng.normal(size=n).astype(np.float32), source, bits)
    for excluded in (np.empty(0, np.int64), np.flatnonzero(rng.random(n) < 0.3)):
        query = rng.normal(size=d).astype(np.float32)
        result = table.top(query, k, excluded)
        assert (result.rows.tolist(), result.scores.tolist()) == reference(
            table, query, k, excluded
        )


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("bits", [FOUR_BITS, SEVEN_BITS])
@pytest.mark.parametrize(
    "order", ["ascending", "descending", "equal", "sparse", "spikes", "zeros", "clusters"]
)
def test_adversarial_tables_are_searched_exactly(source, bits, order):
    """Rising or equal scores and rows that four bits represent badly cost no exactness."""
    n, d, rng = 2 * CHUNK_ROWS + 5, 24, np.random.default_rng(5)
    base = rng.normal(size=(n, d))
    shapes = {
        "ascending": np.linspace(0.1, 1, n)[:, None] * np.ones(d),
        "descending": np.linspace(1, 0.1, n)[:, None] * np.ones(d),
        "equal": np.ones((n, d)),
        "sparse": base * (rng.random((n, d)) < 0.1),
        "spikes": base * np.where(rng.random((n, d)) < 0.02, 100, 1),
        "zeros": base * (rng.random((n, 1)) < 0.01),
        "clusters": rng.normal(size=(7, d))[rng.integers(0, 7, n)] + 0.001 * base,
    }
    rows, scale = quantize_rows(shapes[order].astype(np.float32))
    table = Int8Index(rows, scale, np.zeros(n, np.float32), source, bits)
    nothing = np.empty(0, np.int64)
    for query in (np.ones(d, np.float32), rng.normal(size=d).astype(np.float32)):
        for k in (3, 200):
            result = table.top(query, k)
            assert (result.rows.tolist(), result.scores.tolist()) == reference(
                table, query, k, nothing
            )


@pytest.mark.parametrize("source", SOURCES)
def test_more_rows_may_be_deferred_than_fit(source):
    """When the list of deferred rows is full it is scored and emptied, and no row is lost."""
    n, d = 3 * CHUNK_ROWS, 8
    rng = np.random.default_rng(0)
    rows = np.full((n, d), 100, np.int8) + rng.integers(-3, 4, (n, d)).astype(np.int8)
    table = Int8Index(rows, np.ones(n, np.float32), np.zeros(n, np.float32), source, FOUR_BITS)
    assert n > 2 * MAX_DEFERRED
    result = table.top(np.ones(d, np.float32), 50)
    expected, _ = reference(table, np.ones(d, np.float32), 50, np.empty(0, np.int64))
    assert result.rows.tolist() == expected


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("bits", [FOUR_BITS, SEVEN_BITS])
@pytest.mark.parametrize("bias", [2.0**20, -(2.0**20), 1e12])
def test_scores_that_float32_cannot_distinguish_are_ranked_exactly(source, bits, bias):
    """Where float32 loses the products in a large bias, no row is missed."""
    n, d, rng = CHUNK_ROWS + 100, 16, np.random.default_rng(4)
    rows, scale = quantize_rows(rng.normal(size=(n, d)).astype(np.float32))
    for size, k in itertools.product((0.001, 0.01, 0.02, 0.05, 0.1, 0.3), (1, 10, 100)):
        table = Int8Index(
            rows, scale * np.float32(size), np.full(n, bias, np.float32), source, bits
        )
        query = rng.normal(size=d).astype(np.float32)
        result = table.top(query, k)
        assert (result.rows.tolist(), result.scores.tolist()) == reference(
            table, query, k, np.empty(0, np.int64)
        )


@pytest.mark.parametrize("source", SOURCES)
def test_ties_go_to_the_earlier_row(source):
    """With all scores equal, the first rows are returned, in order."""
    rows, flat = np.ones((30, 4), np.int8), np.ones(30, np.float32)
    result = Int8Index(rows, flat, flat, source).top(np.ones(4, np.float32), 7)
    assert result.rows.tolist() == list(range(7))


@pytest.mark.parametrize("source", SOURCES)
def test_all_excluded_gives_nothing(source):
    """When no row is eligible the result is empty, not an error; a row listed twice counts once."""
    rows, scale, bias, query, _ = problem(1, 20, 8)
    table = Int8Index(rows, scale, bias, source)
    result = table.top(query, 5, np.array([*range(20), 3, 3]))
    assert result.rows.size == result.scores.size == result.eligible == 0
    assert table.top(query, 0).rows.size == 0


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("bits", [FOUR_BITS, SEVEN_BITS])
def test_the_largest_products_do_not_overflow(source, bits):
    """Extreme rows and queries sum exactly, up to the most dimensions and beyond."""
    for d in (1, 64, 512, 513, 1024, 4096, 8191, 8192):
        rows = np.full((3, d), 127, np.int8)
        rows[1] = -127
        rows[2] = -128
        table = Int8Index(rows, np.ones(3, np.float32), np.zeros(3, np.float32), source, bits)
        result = table.top(np.ones(d, np.float32), 3)
        assert result.rows.tolist() == [0, 1, 2]
        assert result.scores == pytest.approx([127.0 * d, -127.0 * d, -128.0 * d], rel=1e-12)
        result = table.top(-np.ones(d, np.float32), 3)
        assert result.rows.tolist() == [2, 1, 0]
        assert result.scores == pytest.approx([128.0 * d, 127.0 * d, -127.0 * d], rel=1e-12)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("bits", [FOUR_BITS, SEVEN_BITS])
@pytest.mark.parametrize("size", [1e-11, 1e-3, 1e12])
def test_large_and_small_numbers_are_searched_exactly(source, bits, size):
    """Scales and queries at the ends of what is allowed neither overflow nor vanish."""
    rows, scale, bias, query, excluded = problem(3, 300, 12)
    table = Int8Index(rows, (scale * np.float32(size / 2)).clip(1e-11, 1e12), bias, source, bits)
    for factor in (1e-11, 1.0, 1e11):
        scaled = (query * np.float32(factor)).astype(np.float32)
        result = table.top(scaled, 20, excluded)
        assert (result.rows.tolist(), result.scores.tolist()) == reference(
            table, scaled, 20, excluded
        )


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 32))
def test_scores_are_those_of_float64_on_the_dequantized_rows(seed, n, d):
    """A score differs from float64 by at most half a query step times the row's absolute sum."""
    rows, scale, bias, query, _ = problem(seed, n, d)
    step = quantize_query(query)[1]
    result = Int8Index(rows, scale, bias, "numpy").top(query, n)
    exact = (rows.astype(np.float64) @ query.astype(np.float64)) * scale + bias
    bound = 0.5 * step * np.abs(rows.astype(np.float64)).sum(axis=1) * scale + 1e-9
    assert (np.abs(result.scores - exact[result.rows]) <= bound[result.rows]).all()
    assert step <= np.abs(query).max() * 1.2e-7


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    "query", [[0.0, 0.0], [np.nan, 1.0], [1.0, np.nan], [np.inf, 1.0], [1e13, 1.0], [1e-13, 0.0]]
)
def test_a_query_without_a_direction_scores_by_bias_alone(source, query):
    """A zero, non-finite or enormous query gives every item its bias, never NaN."""
    bias = np.array([1.0, 3.0, 2.0], np.float32)
    table = Int8Index(np.ones((3, 2), np.int8), np.ones(3, np.float32), bias, source)
    result = table.top(np.array(query, np.float32), 3)
    assert result.rows.tolist() == [1, 2, 0]
    assert result.scores.tolist() == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("source", SOURCES)
def test_one_table_serves_many_threads(source):
    """Threads that search one table concurrently, for different k, each get their own result."""
    rows, scale, bias, _, excluded = problem(2, 3000, 16)
    table = Int8Index(rows, scale, bias, source)
    queries = np.random.default_rng(1).normal(size=(200, 16)).astype(np.float32)

    def is_exact(i: int) -> bool:
        k = (1, 10, 1500)[i % 3]
        result = table.top(queries[i], k, excluded)
        expected = reference(table, queries[i], k, excluded)
        return (result.rows.tolist(), result.scores.tolist()) == expected

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(is_exact, range(200)))


@pytest.mark.parametrize("source", SOURCES)
def test_excluded_rows_may_come_in_any_form(source):
    """Other integer types, strided views and rows that do not exist work with every kernel."""
    rows = np.arange(20, dtype=np.int8)[:, None]
    table = Int8Index(rows, np.ones(20, np.float32), np.zeros(20, np.float32), source)
    query = np.ones(1, np.float32)
    for excluded in (
        np.arange(20)[::-1][:6:2],
        np.array([19, 18], np.int32),
        np.array([-1, 25, 19]),
    ):
        result = table.top(query, 3, excluded)
        existing = {row for row in excluded.tolist() if 0 <= row < 20}
        expected = [row for row in range(19, -1, -1) if row not in existing][:3]
        assert result.rows.tolist() == expected
        assert result.eligible == 20 - len(existing)


@pytest.mark.parametrize("source", SOURCES)
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 300), st.floats(0, 1))
def test_masked_rows_are_left_out_like_excluded_ones(source, seed, n, share):
    """Rows hidden by a mask, excluded by a list, or both, are left out and count once."""
    rows, scale, bias, query, excluded = problem(seed, n, 8)
    hidden = np.random.default_rng(seed).random(n) < share
    table = Int8Index(rows, scale, bias, source)
    left_out = np.union1d(np.flatnonzero(hidden), excluded)
    result = table.top(query, 20, excluded, RowMask(hidden))
    assert (result.rows.tolist(), result.scores.tolist()) == reference(table, query, 20, left_out)
    assert result.eligible == n - len(left_out)
    assert table.top(query, 20).eligible == n


def test_a_mask_for_another_table_is_refused():
    """A mask of another length raises ValueError, before any address is used."""
    table = Int8Index(*problem(0, 100, 4)[:3])
    with pytest.raises(ValueError, match="expected a mask of 100 rows, found one of 99"):
        table.top(np.ones(4, np.float32), 3, None, RowMask(np.zeros(99, np.bool_)))


def test_rows_too_small_for_a_scale_become_zero():
    """Vectors near zero get a scale that a table accepts."""
    rows, scale = quantize_rows(np.full((1, 4), 1e-11, np.float32))
    table = Int8Index(rows, scale, np.zeros(1, np.float32))
    assert table.top(np.ones(4, np.float32), 1).scores.tolist() == [0.0]


def test_rows_are_rounded_to_nearest():
    """Dequantised rows lie within half a step of the vectors, and a zero vector stays zero."""
    vectors = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    vectors[3] = 0.0
    rows, scale = quantize_rows(vectors)
    assert (np.abs(rows * scale[:, None] - vectors) <= scale[:, None] * 0.5 + 1e-6).all()
    assert not rows[3].any()
    assert np.abs(rows).max() == 127


@pytest.mark.parametrize(
    ("scale", "bias"),
    [(np.nan, 0), (0, 0), (-1, 0), (1e13, 0), (1e-13, 0), (1, np.nan), (1, np.inf)],
)
def test_numbers_that_cannot_be_ranked_are_refused(scale, bias):
    """Scales and biases that bounds cannot handle raise ValueError with the allowed range."""
    with pytest.raises(ValueError, match="expected scales of 1e-12 to 1e"):
        Int8Index(
            np.ones((1, 2), np.int8), np.array([scale], np.float32), np.array([bias], np.float32)
        )


def test_an_unknown_kernel_is_refused(monkeypatch):
    """`SANDERLING_KERNELS` with another name raises ValueError that names the choices."""
    monkeypatch.setenv("SANDERLING_KERNELS", "fortran")
    with pytest.raises(ValueError, match="compiled, numba, numpy"):
        loader.chosen.__wrapped__()


def test_missing_kernels_are_reported(monkeypatch, tmp_path):
    """Where no library was built, loading it raises ImportError that names processor and kinds."""
    monkeypatch.setattr(loader, "path", lambda machine, kind: tmp_path / kind)
    with pytest.raises(ImportError, match=f"no compiled kernels for {cpu.machine()}"):
        loader.compiled()


def test_a_library_of_other_sources_is_not_loaded(monkeypatch):
    """A library that was built before its sources changed is treated as absent."""
    monkeypatch.setattr(loader, "stamp", lambda: "00000000")
    with pytest.raises(ImportError, match="no library was built for it"):
        loader.compiled()


@pytest.mark.parametrize(
    "kind", [kind for kind in cpu.kinds() if loader.path(cpu.machine(), kind).exists()]
)
def test_every_library_that_this_processor_can_run_is_exact(kind, monkeypatch):
    """The libraries for older processors return the same rows and scores as the best one."""
    monkeypatch.setattr(cpu, "kinds", lambda: [kind])
    rows, scale, bias, query, excluded = problem(9, 20_000, 40)
    for bits, k in itertools.product((FOUR_BITS, SEVEN_BITS), (1, 10, 300)):
        table = Int8Index(rows, scale, bias, "numpy", bits)
        table.kernels = loader.compiled()
        assert table.kernels.kind == kind
        result = table.top(query, k, excluded)
        assert (result.rows.tolist(), result.scores.tolist()) == reference(
            table, query, k, excluded
        )
