"""Latency of a recommendation under rules, and of changed attributes, beside the plain call.

As `bench recommend`: a known user, k = 10, 200 items seen and excluded, ε = 0.1 in a pool of 50.
The filter `price < 19` leaves one item in ten; `boost` lifts these, `where, boost` two in nine of
them. Calls take turns, so that ratios hold on a busy machine. The peers search exactly, with the
same filter and exclusion, and do nothing else: numpy (float32 product, mask made before,
argpartition) and, in an environment of its own, Qdrant Edge with an index of prices (`exact=True`,
one thread); `search` is ours of the same, for a rule that is in use (`ranking.partial_indexes`).

    python -m bench rules [--items 100000] [--no-qdrant] [--core 1]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.environments import interpreter_of
from bench.serving.random_bundle import write_random_bundle
from sanderling import Engine
from sanderling.bundle.manifest import Exploration
from sanderling.kernels import loader
from sanderling.ranking.search_types import RowMask

ROOT = Path(__file__).parents[1]
PEER = ROOT / "bench" / "filtering" / "qdrant_worker.py"
DIM, K, POOL, SEEN, USERS = 64, 10, 50, 200, 64
LIMIT = 19  # prices are 10 to 99
WHERE = {"price": {"lt": LIMIT}}
BOOST = [{"where": WHERE, "by": 0.5}]
BOOST_OF_FEW = [{"where": {"price": {"lt": 12}}, "by": 0.5}]
CHANGED = 1000
CHANGE = "set_attributes of 1,000"
ROUNDS = 10


def run(arguments: list[str]) -> dict[str, Any]:
    """Return p50 and p99 in µs of each call, and its ratios to the plain call and to the peers."""
    options = _parser().parse_args(arguments)
    os.sched_setaffinity(0, {options.core})
    kernels = loader.chosen()
    with tempfile.TemporaryDirectory() as folder:
        result = _measure(Path(folder), options)
    name = f"{kernels.source} for {kernels.kind}" if kernels else "numpy"
    return {"kernels": name, "items": options.items, **result}


def _measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    items = options.items
    rng = np.random.default_rng(0)
    plan = Exploration(epsilon=0.1, pool=POOL)
    write_random_bundle(folder / "bundle", items=items, dim=DIM, state=192, exploration=plan)
    seen = np.stack([rng.choice(items, SEEN, replace=False) for _ in range(USERS)])
    queries = rng.standard_normal((USERS, DIM)).astype(np.float32)
    with Engine.open(folder / "bundle", folder / "state") as engine:
        names = [[f"item-{row}" for row in rows] for rows in seen]
        for user, rows in enumerate(names):
            for item in rows[:20]:
                engine.observe(f"user-{user}", item)
        engine.warm_up(["price", "stock"])

        # The engine does not show its index; the same search alone needs it.
        scorer = engine._active_bundle.scorer
        index = scorer.index
        vectors = index.rows * index.scale[:, None]
        prices = np.arange(items) % 90 + 10
        is_cheap = prices < LIMIT
        masks = RowMask(~is_cheap), None
        fresh = itertools.count()
        batches = [
            {f"item-{row}": {"stock": int(row % 7)} for row in rng.choice(items, CHANGED)}
            for _ in range(ROUNDS + 1)
        ]

        def recommend(user: int, **rules: Any) -> Any:
            return engine.recommend(f"user-{user}", K, exclude=names[user], **rules)

        calls: dict[str, Callable[[int], Any]] = {
            "plain": recommend,
            "where": lambda user: recommend(user, where=WHERE),
            "where, first time": lambda user: recommend(
                user, where={"price": {"lt": LIMIT + next(fresh) / 1e6}}
            ),
            "boost": lambda user: recommend(user, boost=BOOST),
            "where, boost": lambda user: recommend(user, where=WHERE, boost=BOOST_OF_FEW),
            "among 400": lambda user: recommend(user, among=names[user - 1] + names[user - 2]),
            "search": lambda user: scorer.search(queries[user], K, seen[user], masks),
            "numpy": lambda user: _numpy(vectors, index.bias, queries[user], seen[user], is_cheap),
        }
        problem = {"vectors": vectors, "queries": queries, "prices": prices, "excluded": seen}
        peer = None if options.no_qdrant else _qdrant(folder, problem, options.core)
        spent = _times(calls, peer, lambda turn: engine.set_attributes(batches[turn]))
    return _summary(spent)


def _times(
    calls: dict[str, Callable[[int], Any]],
    peer: subprocess.Popen[str] | None,
    change: Callable[[int], None],
) -> dict[str, list[float]]:
    """Return the times of all calls, which take turns of one call for each user."""
    spent: dict[str, list[float]] = {}
    for turn in range(ROUNDS + 1):
        of_turn = {name: _round(call) for name, call in calls.items()}
        cpu = time.process_time()
        of_turn[CHANGE] = [_timed(change, turn)]
        of_turn[f"{CHANGE}, CPU"] = [(time.process_time() - cpu) * 1e6]
        if peer:
            print("go", file=peer.stdin, flush=True)
            of_turn["Qdrant Edge"] = _answer(peer)
        for name, times in of_turn.items():
            spent.setdefault(name, []).extend(times if turn else [])  # the first warms caches up
    if peer:
        peer.communicate()
    return spent


def _round(call: Callable[[int], Any]) -> list[float]:
    return [_timed(call, user) for user in range(USERS)]


def _timed(call: Callable[[int], Any], argument: int) -> float:
    start = time.perf_counter()
    call(argument)
    return (time.perf_counter() - start) * 1e6


def _numpy(vectors: Any, bias: Any, query: Any, excluded: Any, is_eligible: Any) -> Any:
    scores = vectors @ query + bias
    scores[~is_eligible] = -np.inf
    scores[excluded] = -np.inf
    best = np.argpartition(scores, -K)[-K:]
    return best[np.argsort(-scores[best])]


def _qdrant(folder: Path, problem: dict[str, Any], core: int) -> subprocess.Popen[str]:
    """Start the peer, and check that its first answers are the exact ones."""
    interpreter = interpreter_of(".bench-rules-peers", ["qdrant-edge-py"])
    np.savez(folder / "problem.npz", **problem)
    peer = subprocess.Popen(
        [str(interpreter), str(PEER), str(folder / "problem.npz"), str(K), str(LIMIT), str(core)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    vectors, queries, prices, seen = problem.values()
    no_bias = np.zeros(len(vectors), np.float32)
    for i, rows in enumerate(_answer(peer)):
        expected = _numpy(vectors, no_bias, queries[i], seen[i], prices < LIMIT)
        assert rows == expected.tolist(), f"expected {expected}, found {rows}"
    return peer


def _answer(peer: subprocess.Popen[str]) -> Any:
    assert peer.stdout is not None
    return json.loads(peer.stdout.readline())


def _summary(spent: dict[str, list[float]]) -> dict[str, Any]:
    result: dict[str, Any] = {
        name: {"p50": float(np.percentile(times, 50)), "p99": float(np.percentile(times, 99))}
        for name, times in spent.items()
    }
    ratios = {
        "where / plain": ("where", "plain"),
        "where, first time / plain": ("where, first time", "plain"),
        "boost / plain": ("boost", "plain"),
        "where, boost / plain": ("where, boost", "plain"),
        "numpy / search": ("numpy", "search"),
        "Qdrant Edge / search": ("Qdrant Edge", "search"),
        "Qdrant Edge / where": ("Qdrant Edge", "where"),
    }
    for name, (above, below) in ratios.items():
        if above in result:
            result[name] = result[above]["p50"] / result[below]["p50"]
    for name, value in result.items():
        is_ratio = isinstance(value, float)
        text = f"{value:.2f}" if is_ratio else f"{value['p50']:.0f} / {value['p99']:.0f}"
        print(f"{name:<28} {text}", file=sys.stderr)
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench rules")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--no-qdrant", action="store_true")
    parser.add_argument("--core", type=int, default=1)
    return parser
