"""Random tables, queries and policies for all implementations of the kernels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.index import Int8Index
from sanderling.ranking.search_types import RowMask, SearchResult

# n, d, k: one row, less than a block, ties across blocks, four and seven bits, several chunks
SIZES = [(1, 1, 1), (65, 3, 10), (1000, 64, 10), (3001, 37, 100), (20_000, 16, 10), (70_001, 64, 7)]


class Table(NamedTuple):
    """Rows int8 [n, d] with scales and biases float32 [n]."""

    rows: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]


class Search(NamedTuple):
    """A query, and what it may not find; some biases are raised for it."""

    query: NDArray[np.float32]
    k: int
    excluded: NDArray[np.int64]
    hidden: NDArray[np.bool_] | None
    raised: NDArray[np.int64]
    by: NDArray[np.float32]

    @property
    def mask(self) -> RowMask | None:
        """The hidden rows as a mask."""
        return None if self.hidden is None else RowMask(self.hidden)


def table(n: int, d: int, seed: int = 0) -> Table:
    """Return a table in which many scores are equal where its rows have few levels."""
    rng = np.random.default_rng(seed + n)
    levels = int(rng.choice([1, 3, 127]))
    rows = rng.integers(-levels, levels + 1, (n, d)).astype(np.int8)
    scale = rng.choice(np.array([0.5, 0.01, 2.0], np.float32), n)
    bias = rng.choice(np.array([0.0, 0.25, -3.0], np.float32), n)
    return Table(rows, scale, bias)


def searches(n: int, d: int, k: int, seed: int = 0) -> list[Search]:
    """Return searches, the last of which have queries at the limits of rounding."""
    rng = np.random.default_rng(seed + n + 1)
    usual = rng.standard_normal(d).astype(np.float32)
    halves = np.full(d, 0.5, np.float32)
    halves[0] = 8388607.0  # then the step is 1, and the others lie between two integers
    queries = [rng.standard_normal(d).astype(np.float32) for _ in range(6)]
    queries += [halves, usual * np.float32(1e-11), usual * np.float32(1e11), usual * 0]
    made = []
    for i, query in enumerate(queries):
        excluded = rng.integers(-2, n + 2, 10 if i % 3 else 0)
        hidden = rng.random(n) < (0.9 if i == 3 else 0.2) if i % 2 else None
        raised = rng.permutation(n)[: 5 if i % 4 == 2 else 0]
        by = rng.normal(size=len(raised)).astype(np.float32)
        made.append(Search(query, k if i else 2 * k, excluded, hidden, raised, by))
    return made


def found(index: Int8Index, search: Search) -> SearchResult:
    """Return what a search finds."""
    undo = index.raise_biases(search.raised, search.by)
    try:
        return index.top(search.query, search.k, search.excluded, search.mask)
    finally:
        undo()


def policy(d: int, c: int, m: int, t: int, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """Return the tensors of a user model with three kinds of event."""
    rng = np.random.default_rng(seed)

    def tensor(*shape: int) -> NDArray[np.float32]:
        return (rng.standard_normal(shape) * 3 / np.sqrt(shape[-1])).astype(np.float32)

    return {
        "state.input": tensor(c, d),
        "state.kind": tensor(3, c),
        "state.decay": rng.uniform(0, 0.999, c).astype(np.float32),
        "output.gain": tensor(c),
        "output.shift": tensor(c),
        "output.w1": tensor(m, c),
        "output.b1": tensor(m),
        "output.w2": tensor(d, m),
        "output.b2": tensor(d),
        "context.project": tensor(d, t),
    }


POLICIES = [(16, 8, 16, 16), (64, 64, 128, 32), (37, 19, 45, 5), (1, 1, 1, 1)]  # d, c, m, t
KINDS = ["view", "like", "skip"]


def events(d: int, t: int, count: int) -> list[tuple[Any, int, Any]]:
    """Return item vectors, kinds and contexts; one vector is far larger than the others."""
    rng = np.random.default_rng(d)
    made = []
    for i in range(count):
        item = rng.standard_normal(d).astype(np.float32) * np.float32(1e4 if i == 9 else 1)
        context = rng.standard_normal(t).astype(np.float32) if i % 2 else None
        made.append((item, i % 3, context))
    return made
