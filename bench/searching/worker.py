"""Runs the contenders in the peers' environment: `worker.py DATA ROLE QUERIES CONTENDER ...`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.searching.contenders import CONTENDERS, Search, reciprocal_rank
from bench.searching.queries import KINDS, Query, catalogs, made_up, queries

TITLES = 100_000
TURN = 20  # queries of one contender before the next one
REPORTED_SEED = 0  # weights were chosen on another


def main() -> None:
    """Print one JSON object: the quality, or the latency, of the contenders that are installed."""
    root, role, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    names = [name for name in sys.argv[4:] if _is_installed(name)]
    measure = quality if role == "quality" else latency
    print(json.dumps(measure(catalogs(root), names, count)))


def quality(
    by_name: dict[str, list[str]], names: Sequence[str], count: int, seed: int = REPORTED_SEED
) -> dict[str, Any]:
    """Return the mean reciprocal rank at 10 by catalog, contender and kind of query, and the
    standard error of its difference from the first contender's."""
    result: dict[str, Any] = {}
    for catalog, titles in by_name.items():
        result[catalog] = {name: {} for name in names}
        searches = {name: CONTENDERS[name](titles) for name in names}
        for kind in KINDS:
            asked = queries(titles, kind, count, seed)
            ranks = {
                name: np.array([reciprocal_rank(titles, search(text), row) for text, row in asked])
                for name, search in searches.items()
            }
            for name, values in ranks.items():
                differences = values - ranks[names[0]]
                error = float(differences.std() / len(asked) ** 0.5)
                result[catalog][name][kind] = {"mrr": float(values.mean()), "error": error}
    return result


def latency(
    by_name: dict[str, list[str]], names: Sequence[str], count: int, size: int = TITLES
) -> dict[str, Any]:
    """Return p50 and p99 in ms of wall clock and of this thread's processor time, by contender and
    kind of query, and the seconds that its index takes."""
    titles = made_up([title for titles in by_name.values() for title in titles], size)
    searches = {}
    result: dict[str, Any] = {}
    for name in names:
        start = time.process_time()
        searches[name] = CONTENDERS[name](titles)
        result[name] = {"index, s": time.process_time() - start}
    for kind in KINDS:
        asked = queries(titles, kind, count, REPORTED_SEED)
        for name, times in _times(searches, asked).items():
            result[name][kind] = times
    return result


def _times(searches: dict[str, Search], asked: Sequence[Query]) -> dict[str, dict[str, float]]:
    """Time the contenders in turns, so that their ratios hold on a busy machine."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in searches}
    for first in range(0, len(asked), TURN):
        for name, search in searches.items():
            for text, _ in asked[first : first + TURN]:
                start = time.perf_counter(), time.thread_time()
                search(text)
                times = time.perf_counter() - start[0], time.thread_time() - start[1]
                spent[name].append(times)
    result = {}
    for name, pairs in spent.items():
        wall, processor = np.percentile(np.array(pairs) * 1e3, [50, 99], axis=0).T
        result[name] = {
            "p50": wall[0], "p99": wall[1],
            "processor p50": processor[0], "processor p99": processor[1],
        }  # fmt: skip
    return result


def _is_installed(name: str) -> bool:
    """Return whether a contender runs here; say on stderr which one is left out."""
    try:
        CONTENDERS[name](["a title", "another one"])
    except (ImportError, KeyError) as error:
        print(f"{name}: left out: {error!r}", file=sys.stderr)
        return False
    return True


main()
