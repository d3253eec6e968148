"""Latency of one recommendation, from call to slate, and how much of it is the exact search.

As in an app: a known user, k = 10, 200 items seen and excluded, ε = 0.1 in a pool of 50, every
decision logged to the outbox, one call after the other with pauses in which the outbox writes.
`recommend` finds user and exclusions as the call before left them, as with a page or a refresh;
`after an event` finds another state, and its item excluded, so that nothing of both is known.
`search` is the same search alone, on the same excluded rows, in the same run: the rest is Python.
The peer is the obvious code in numpy: float32 matrix-vector product, exclusion and argpartition,
without exploration, propensities, state or log.

    python -m bench recommend [ITEMS ...]        (default 1000 10000 100000; d = 64)
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.serving.random_bundle import write_random_bundle
from sanderling import Engine
from sanderling.bundle.manifest import Exploration
from sanderling.kernels import loader

DIM = 64
K = 10
POOL = 50
SEEN = 200
USERS = 64
CALLS = 4000
TURN = 20  # calls of one kind before the next kind
PAUSE_S = 0.0002


def run(arguments: list[str]) -> dict[str, Any]:
    """Return p50 and p99 in µs for each number of items, and ratios to the numpy peer."""
    kernels = loader.chosen()
    name = f"{kernels.source} for {kernels.kind}" if kernels else "numpy"
    sizes = [int(argument) for argument in arguments] or [1000, 10_000, 100_000]
    return {"kernels": name, **{str(items): _case(items) for items in sizes}}


def _case(items: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    seen = [rng.choice(items, SEEN, replace=False) for _ in range(USERS)]
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        write_random_bundle(
            bundle, items=items, dim=DIM, state=192, exploration=Exploration(epsilon=0.1, pool=POOL)
        )
        with Engine.open(bundle, Path(folder) / "state") as engine:
            names = [[f"item-{row}" for row in rows] for rows in seen]
            for user, rows in enumerate(names):
                for item in rows[:20]:
                    engine.observe(f"user-{user}", item)
            engine.warm_up()
            # The engine does not show its index; the same search alone needs it.
            index = engine._active_bundle.scorer.index
            queries = rng.standard_normal((USERS, DIM)).astype(np.float32)
            vectors = index.rows * index.scale[:, None]
            numbers = itertools.count()

            def click(i: int) -> None:
                number = next(numbers)
                item = f"item-{7 * number % items}"
                engine.observe(f"user-{i}", item)
                names[i][number % SEEN] = item

            result: dict[str, Any] = _times(
                {
                    "recommend": lambda i: engine.recommend(f"user-{i}", K, exclude=names[i]),
                    "after an event": lambda i: engine.recommend(f"user-{i}", K, exclude=names[i]),
                    "search": lambda i: index.top(queries[i], POOL, seen[i]),
                    "numpy peer": lambda i: _peer(vectors, index.bias, queries[i], seen[i]),
                },
                {"after an event": click},
            )
    for name, outside in (
        ("recommend", "outside the search"),
        ("after an event", "outside after an event"),
    ):
        result[outside] = {"p50": result[name]["p50"] - result["search"]["p50"]}
    result["recommend / peer"] = result["recommend"]["p50"] / result["numpy peer"]["p50"]
    lines = [
        f"{n} {v['p50']:.0f}/{v.get('p99', 0):.0f}"
        for n, v in result.items()
        if isinstance(v, dict)
    ]
    print(
        f"{items:>8} items, µs p50/p99: {', '.join(lines)}; "
        f"{result['recommend / peer']:.2f} of peer",
        file=sys.stderr,
    )
    return result


def _peer(
    vectors: np.ndarray, bias: np.ndarray, query: np.ndarray, excluded: np.ndarray
) -> np.ndarray:
    scores = vectors @ query + bias
    scores[excluded] = -np.inf
    best = np.argpartition(scores, -K)[-K:]
    return best[np.argsort(-scores[best])]


def _times(
    calls: dict[str, Callable[[int], Any]], before: dict[str, Callable[[int], Any]]
) -> dict[str, Any]:
    """Time the calls in turns, so that their ratios hold on a busy machine; what comes `before` a
    call does not count."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for first in range(0, CALLS, TURN):
        for name, call in calls.items():
            for number in range(first, first + TURN):
                user = number % USERS
                if name in before:
                    before[name](user)
                start = time.perf_counter()
                call(user)
                spent[name].append((time.perf_counter() - start) * 1e6)
                time.sleep(PAUSE_S)
    return {
        name: {"p50": float(np.percentile(times, 50)), "p99": float(np.percentile(times, 99))}
        for name, times in spent.items()
    }
