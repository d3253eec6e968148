"""The native side of search.ts: makes tables, and times their search by the compiled kernels.

Reads lines `n d k repeats` and answers each with the mean processor time of a search in
microseconds; the first answer for a table is its time to pack. Tables lie in the folder that the
first argument names.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from sanderling.kernels import cpu
from sanderling.ranking.index import Int8Index
from sanderling.ranking.quantization import quantize_rows

QUERIES = 32


def main(folder: Path, kind: str) -> None:
    """Answer the lines of standard input with kernels of one kind."""
    kinds = cpu.kinds()
    cpu.kinds = lambda: kinds[kinds.index(kind) :] if kind in kinds else kinds  # type: ignore[assignment]
    indexes: dict[tuple[int, int], tuple[Int8Index, np.ndarray]] = {}
    for line in sys.stdin:
        n, d, k, repeats = map(int, line.split())
        if (n, d) not in indexes:
            indexes[n, d], answer = _made(folder, n, d)
        else:
            answer = _mean(*indexes[n, d], k, repeats)
        print(answer, flush=True)


def _made(folder: Path, n: int, d: int) -> tuple[tuple[Int8Index, np.ndarray], float]:
    """Return an index and queries, which are written to the folder, and the time to pack."""
    rng = np.random.default_rng(n)
    rows, scale = quantize_rows(rng.standard_normal((n, d)).astype(np.float32))
    bias = (rng.standard_normal(n) * 0.1).astype(np.float32)
    queries = rng.standard_normal((QUERIES, d)).astype(np.float32)
    for name, array in (("rows", rows), ("scale", scale), ("bias", bias), ("queries", queries)):
        (folder / f"{n}-{d}-{name}").write_bytes(array.tobytes())
    index = Int8Index(rows, scale, bias, "compiled")
    start = time.process_time()
    index.warm_up()
    return (index, queries), (time.process_time() - start) * 1e6


def _mean(index: Int8Index, queries: np.ndarray, k: int, repeats: int) -> float:
    start = time.process_time()
    for i in range(repeats):
        index.top(queries[i % QUERIES], k)
    return (time.process_time() - start) / repeats * 1e6


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
