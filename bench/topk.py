"""Latency of exact top-k search, compared with the exact searches of other libraries.

Lower bound: a search over int8 rows reads n x d bytes once; `floor` is numpy's time to do that.
Ours reads half of them and a twentieth more. Each contender is a process of its own on one core
with one thread; they take turns, a round of 32 queries each, so that ratios hold on a machine that
others use. Queries are whole numbers, so that contenders for int8 queries answer the same question;
ours does not rely on it. `exact` says whether the first answers were those of float64.

    python -m bench topk [--n 1000 10000 100000] [--d 64 128] [--k 10 100]
                         [--rows normal|clustered|real]
                         [--contenders NAME ...] [--rounds 5] [--core 1]

The first run makes an environment for the peers, `.bench-topk-peers/` (two minutes).
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.environments import interpreter_of
from bench.exact_topk.worker import CONTENDERS
from bench.ranking import data
from sanderling.ranking.quantization import quantize_rows

ROOT = Path(__file__).parents[1]
PACKAGES = ["faiss-cpu", "usearch", "numkong", "hnswlib", "scann"]
QUERIES, EXCLUDED = 32, 0.1


def run(arguments: list[str]) -> dict[str, Any]:
    """Return a row for each contender and cell, and print a table of each cell."""
    options = _parser().parse_args(arguments)
    interpreter = interpreter_of(".bench-topk-peers", PACKAGES, ["engine"])
    rows: list[dict[str, Any]] = []
    for n, d, k in itertools.product(options.n, options.d, options.k):
        vectors, queries = PROBLEMS[options.rows](n, d, np.random.default_rng(n + d), options.data)
        with tempfile.TemporaryDirectory() as folder:
            problem = Path(folder) / "problem.npz"
            _write(problem, vectors, queries)
            results = _measure(interpreter, problem, k, options)
        cell = {"rows": options.rows, "n": len(vectors), "d": d, "k": k}
        rows += [{"contender": name, **cell, **values} for name, values in results.items()]
        _print_table(cell, results)
    return {"rows": rows}


def normal(
    n: int, d: int, rng: np.random.Generator, _: str | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return independent rows and queries: the hardest case for bounds."""
    return rng.standard_normal((n, d), np.float32), rng.standard_normal((QUERIES, d), np.float32)


def clustered(
    n: int, d: int, rng: np.random.Generator, _: str | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return rows around a root of n centres, and queries near some rows."""
    centres = rng.standard_normal((max(1, int(n**0.5)), d), np.float32)
    rows = centres[rng.integers(0, len(centres), n)] + 0.5 * rng.standard_normal((n, d), np.float32)
    near = rows[rng.integers(0, n, QUERIES)]
    return rows, near + 0.3 * rng.standard_normal((QUERIES, d), np.float32)


def real(
    n: int, d: int, rng: np.random.Generator, root: str | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return items and users of Online Retail by a truncated SVD of its counts; n is ignored."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import svds

    log = data.online_retail(data.folder(root))
    counts = csr_matrix((np.ones(len(log), np.float32), (log.user, log.item)))
    counts.data = np.log1p(counts.data)
    users, sizes, items = svds(counts, d, random_state=0)
    queries = (users * sizes)[rng.integers(0, len(users), QUERIES)]
    return items.T.astype(np.float32), queries.astype(np.float32)


PROBLEMS = {"normal": normal, "clustered": clustered, "real": real}


def _write(path: Path, vectors: NDArray[Any], queries: NDArray[Any]) -> None:
    scale = np.abs(vectors).max() / 127.0
    rows = np.rint(vectors / scale).astype(np.int8)
    whole, _ = quantize_rows(queries)
    excluded = np.flatnonzero(np.random.default_rng(0).random(len(rows)) < EXCLUDED)
    np.savez(path, rows=rows, queries=whole.astype(np.float32), excluded=excluded)


def _measure(
    interpreter: Path, problem: Path, k: int, options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Return p50, p99 and exactness of each contender that runs here, each with the floor's p50."""
    names = ["floor", *(options.contenders or [name for name in CONTENDERS if name != "floor"])]
    workers = {name: _start(interpreter, name, problem, k, options.core) for name in names}
    answers = {name: _answer(worker) for name, worker in workers.items()}
    spent: dict[str, list[float]] = {
        name: [] for name, answer in answers.items() if answer is not None
    }
    for turn, name in itertools.product(range(options.rounds + 1), spent):
        print("go", file=workers[name].stdin, flush=True)
        times = _answer(workers[name])
        spent[name] += times if turn else []  # the first round warms caches up
    for worker in workers.values():
        worker.communicate()
    floor = float(np.median(spent["floor"]))
    return {
        name: {
            "p50_us": float(np.median(times)),
            "p99_us": float(np.percentile(times, 99)),
            "floor_us": floor,
            "exact": answers[name]["exact"],
        }
        for name, times in spent.items()
    }


def _start(interpreter: Path, name: str, problem: Path, k: int, core: int) -> subprocess.Popen[str]:
    command = [
        str(interpreter),
        "-m",
        "bench.exact_topk.worker",
        name,
        str(problem),
        str(k),
        str(core),
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        bufsize=1,
    )


def _answer(worker: subprocess.Popen[str]) -> Any:
    """Return the worker's next line, None when it has ended: its library is not installed here."""
    assert worker.stdout is not None
    line = worker.stdout.readline()
    return json.loads(line) if line else None


def _print_table(cell: dict[str, Any], results: dict[str, dict[str, Any]]) -> None:
    print(
        f"\n{cell['n']} x {cell['d']}, k = {cell['k']}, {cell['rows']} rows: µs p50 / p99",
        file=sys.stderr,
    )
    peers = [
        row["p50_us"]
        for name, row in results.items()
        if row["exact"] and not name.startswith(("sanderling", "floor", "FAISS HNSW"))
    ]
    for name, row in sorted(results.items(), key=lambda item: item[1]["p50_us"]):
        times = f"{row['p50_us']:10.1f} / {row['p99_us']:10.1f}"
        to_floor = f"{row['p50_us'] / row['floor_us']:7.2f} of the floor"
        to_peer = f"{row['p50_us'] / min(peers):6.2f} of the best exact peer" if peers else ""
        exactness = "" if row["exact"] else "  not exact"
        print(f"  {name:<40}{times} {to_floor} {to_peer}{exactness}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench topk")
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--d", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--k", type=int, nargs="+", default=[10])
    parser.add_argument("--rows", choices=list(PROBLEMS), default="normal")
    parser.add_argument(
        "--contenders",
        nargs="+",
        default=[],
        choices=[name for name in CONTENDERS if name != "floor"],
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=1)
    parser.add_argument("--data")
    return parser
