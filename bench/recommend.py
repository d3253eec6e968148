"""How long one recommendation takes, from call to slate, and what of it is the exact top-k.

Physics: the kernel must read n × d int8 bytes once; `floor` is numpy's time to sum them. The peer is what one would
write without us: float32 matrix-vector product and argpartition in numpy. One thread, warm, one query at a time.

    python -m bench recommend [ITEMS ...]        (default 1000 10000 100000; d = 64, k = 10, pool 50)
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sanderling import Engine
from sanderling.topk import top
from tests.bundles import write_bundle

DIM, K, POOL = 64, 10, 50


def run(arguments: list[str]) -> dict[str, Any]:
    """Return p50 and p99 in µs for each number of items, and ratios to the numpy peer."""
    return {str(items): _case(items) for items in ([int(at) for at in arguments] or [1000, 10_000, 100_000])}


def _case(items: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        write_bundle(Path(folder) / "bundle", items=items, dim=DIM, state=192)
        with Engine.open(Path(folder) / "bundle", Path(folder) / "state") as engine:
            engine.warm_up()
            table = engine._scorer.bundle.items
            rows, scale, bias = np.array(table.rows), np.array(table.scale), np.array(table.bias)
            rng = np.random.default_rng(0)
            queries = rng.standard_normal((64, DIM)).astype(np.float32)
            floats, nothing = rows * scale[:, None], np.zeros(items, np.bool_)
            result = {
                "recommend": _time(lambda at: engine.recommend(f"user-{at % 64}", K)),
                "top-k": _time(lambda at: top(rows, scale, bias, queries[at % 64], POOL, nothing)),
                "numpy peer": _time(lambda at: _peer(floats, bias, queries[at % 64])),
                "floor": _time(lambda at: int(rows.view(np.int64).sum())),
            }
    result["ratio top-k / peer"] = result["top-k"]["p50"] / result["numpy peer"]["p50"]
    result["ratio recommend / peer"] = result["recommend"]["p50"] / result["numpy peer"]["p50"]
    lines = [f"{n} {v['p50']:.0f}/{v['p99']:.0f}" if isinstance(v, dict) else f"{n} {v:.2f}" for n, v in result.items()]
    print(f"{items:>8} items, µs p50/p99: " + ", ".join(lines))
    return result


def _peer(vectors: np.ndarray, bias: np.ndarray, query: np.ndarray) -> np.ndarray:
    scores = vectors @ query + bias
    best = np.argpartition(scores, -POOL)[-POOL:]
    return best[np.argsort(-scores[best])]


def _time(call: Callable[[int], Any], seconds: float = 1.5) -> dict[str, float]:
    for at in range(20):
        call(at)
    spent, stop = [], time.perf_counter() + seconds
    while time.perf_counter() < stop or len(spent) < 200:
        start = time.perf_counter_ns()
        call(len(spent))
        spent.append((time.perf_counter_ns() - start) / 1e3)
    return {"p50": float(np.quantile(spent, 0.5)), "p99": float(np.quantile(spent, 0.99))}
