"""Queries by which two forms of one policy are compared: what users had, and what they liked next.

They are the end of the log that the checkpoint knows. Whether it learned from them does not matter where both forms
rank the same ones and only the ratio is read. Refuses to know policies.
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
MOST_USERS = 500
MOST_EVENTS = 50
TAIL = 0.2

SCHEMA = pa.schema([(name, pa.list_(pa.int64())) for name in ("items", "kinds", "relevant")])


def queries_of(histories: Sequence[History], repeats: bool) -> list[dict[str, Any]]:
    """Return for the users seen last, at most 500, the item rows and kinds of up to 50 events, and the relevant rows.

    Relevant is what the last fifth of a user's events liked and, unless users repeat, those before it had not.
    """
    latest = sorted(
        (history for history in histories if len(history) > 1),
        key=lambda history: -int(history.times[-1]),
    )
    queries: list[dict[str, Any]] = []
    for history in latest:
        cut = len(history) - max(1, int(TAIL * len(history)))
        had = slice(max(0, cut - MOST_EVENTS), cut)
        later = history.items[cut:][history.liked[cut:]]
        relevant = np.unique(later if repeats else later[~np.isin(later, history.items[:cut])])
        if len(relevant) and len(queries) < MOST_USERS:
            queries.append(
                {"items": history.items[had], "kinds": history.kinds[had], "relevant": relevant}
            )
    return queries


def save(path: Path, queries: Sequence[dict[str, Any]]) -> None:
    """Write a parquet table with one query a row."""
    pq.write_table(pa.Table.from_pylist(list(queries), SCHEMA), path)
