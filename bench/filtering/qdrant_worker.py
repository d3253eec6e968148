"""Qdrant Edge for `bench rules`: answers each line on stdin with a round of times in µs.

    qdrant_worker.py PROBLEM.npz K LIMIT CORE

The problem holds vectors float32 [n, d], queries float32 [q, d], prices [n], and excluded rows
[q, e]. Searched is exactly, among prices below LIMIT, without a query's excluded rows. The first
line of output has the rows of the first answers.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time

import numpy as np
import qdrant_edge as qdrant

CHECKED_QUERIES = 8
BATCH = 5000


def main() -> None:
    """Serve rounds until stdin ends."""
    path, k, limit, core = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    os.sched_setaffinity(0, {core})
    with np.load(path) as problem:
        vectors, queries = problem["vectors"], problem["queries"]
        prices, excluded = problem["prices"], problem["excluded"]
    with tempfile.TemporaryDirectory() as folder:
        shard = _loaded(folder, vectors, prices)
        requests = [
            qdrant.SearchRequest(
                query=qdrant.Query.Nearest(query.tolist()),
                limit=k,
                params=qdrant.SearchParams(exact=True),
                filter=qdrant.Filter(
                    must=[qdrant.FieldCondition("price", range=qdrant.RangeFloat(lt=limit))],
                    must_not=[qdrant.HasIdCondition(set(rows.tolist()))],
                ),
            )
            for query, rows in zip(queries, excluded, strict=True)
        ]
        first = [[point.id for point in shard.search(each)] for each in requests[:CHECKED_QUERIES]]
        print(json.dumps(first), flush=True)
        for _ in sys.stdin:
            spent = []
            for request in requests:
                start = time.perf_counter()
                shard.search(request)
                spent.append((time.perf_counter() - start) * 1e6)
            print(json.dumps(spent), flush=True)
        shard.close()


def _loaded(folder: str, vectors: np.ndarray, prices: np.ndarray) -> qdrant.EdgeShard:
    """Return a shard of all vectors, with an index of prices, as its optimizer leaves it."""
    shard = qdrant.EdgeShard.create(
        folder,
        qdrant.EdgeConfig(
            vectors=qdrant.EdgeVectorParams(vectors.shape[1], qdrant.Distance.Dot),
            max_search_threads=1,
        ),
    )
    shard.update(qdrant.UpdateOperation.create_field_index("price", qdrant.PayloadSchemaType.Float))
    for start in range(0, len(vectors), BATCH):
        rows = range(start, min(start + BATCH, len(vectors)))
        points = [
            qdrant.Point(row, vectors[row].tolist(), {"price": float(prices[row])}) for row in rows
        ]
        shard.update(qdrant.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.optimize()
    return shard


if __name__ == "__main__":
    main()
