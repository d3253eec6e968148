"""Queries that compare two forms of one policy: what users had, and what they liked next.

They are the end of the log that the checkpoint was trained on. That the policy may have learned
from them does not matter, since both forms rank the same queries and only their ratio is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sanderling_trainer.data.histories import History

FILE = "queries.parquet"
MAX_USERS = 500
MAX_EVENTS = 50
TAIL = 0.2  # share of a user's events whose likes are relevant

SCHEMA = pa.schema([(name, pa.list_(pa.int64())) for name in ("items", "kinds", "relevant")])


def queries_of(histories: Sequence[History], repeats: bool) -> list[dict[str, Any]]:
    """Return queries of the users seen last, at most 500.

    A query has `items` and `kinds`, up to 50 events, and `relevant`, catalog rows: the
    likes among the last fifth of the user's events, without items the user had before
    unless users repeat.
    """
    long_enough = (history for history in histories if len(history) > 1)
    latest_first = sorted(long_enough, key=lambda history: -int(history.times[-1]))

    queries: list[dict[str, Any]] = []
    for history in latest_first:
        if len(queries) == MAX_USERS:
            break
        cut = len(history) - max(1, int(TAIL * len(history)))
        liked = history.items[cut:][history.liked[cut:]]
        if not repeats:
            liked = liked[~np.isin(liked, history.items[:cut])]
        relevant = np.unique(liked)

        before = slice(max(0, cut - MAX_EVENTS), cut)
        if len(relevant):
            queries.append(
                {
                    "items": history.items[before],
                    "kinds": history.kinds[before],
                    "relevant": relevant,
                }
            )
    return queries


def save(path: Path, queries: Sequence[dict[str, Any]]) -> None:
    """Write a Parquet table with one query a row."""
    pq.write_table(pa.Table.from_pylist(list(queries), SCHEMA), path)
