"""Merges the examples of a log's partitions, as if the log had been read at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import Decisions, Ints
from sanderling_trainer.event_log.examples import Examples

SMALL_LOG = 1000
UNUSUALLY_LONG = "a slate longer than those of 99 in 100 decisions"

# What the two-dimensional columns have behind the last slot of a slate.
FILL = {
    "items": -1,
    "marginal": 1.0,
    "conditional": 1.0,
    "reward": 0.0,
    "judged": False,
    "ranks": 0,
    "newcomer": False,
    "pinned": False,
}


def merge_examples(partitions: Iterable[Examples]) -> Examples:
    """Return the examples of all partitions, at least one, in their order.

    Slates of unusual length are dropped, and equal context vectors become one.
    """
    # Which lengths are unusual is known at the end only. Until then the two-dimensional columns are
    # kept flat, without the fill behind each slate, so that one long slate does not widen all.
    columns: dict[str, list[NDArray]] = defaultdict(list)
    histories: list[History] = []
    context_rows: dict[bytes, int] = {}
    installs: list[str] = []
    dropped: Counter[str] = Counter()
    width = 0
    for part in partitions:
        decisions = _renumbered(part, len(histories), len(installs), context_rows)
        is_slot = _slot_mask(decisions.slots, decisions.items.shape[1])
        for name, column in vars(decisions).items():
            columns[name].append(column[is_slot] if name in FILL else column)
        histories += [
            replace(history, install=history.install + len(installs)) for history in part.histories
        ]
        installs += part.installs
        dropped += part.dropped
        width = part.contexts.shape[1]

    slots = np.concatenate(columns["slots"])
    usual = slots <= max_usual_slots(slots)
    dropped[UNUSUALLY_LONG] += int((~usual).sum())
    # Each column's pieces are released as soon as they are merged.
    merged = {
        name: _merged(name, np.concatenate(columns.pop(name)), slots, usual)
        for name in list(columns)
    }
    return Examples(
        histories=histories,
        decisions=Decisions(**merged),
        contexts=np.frombuffer(b"".join(context_rows), np.float32).reshape(-1, width).copy(),
        dropped=+dropped,
        installs=installs,
    )


def max_usual_slots(slots: Ints) -> int:
    """Return the length of the longest slate; of over 1,000 decisions, without the longest 1 %.

    Columns are as wide as the longest slate: without this bound one device could widen all.
    """
    if len(slots) <= SMALL_LOG:
        return int(slots.max(initial=1))
    return int(np.quantile(slots, 0.99, method="higher"))


def _renumbered(
    part: Examples, n_histories: int, n_installs: int, context_rows: dict[bytes, int]
) -> Decisions:
    """Return a partition's decisions with the numbering of the whole; add its new contexts."""
    rows = [
        context_rows.setdefault(vector.tobytes(), len(context_rows)) for vector in part.contexts
    ]
    new_row_of = np.array([*rows, -1])  # -1, no context, indexes the last entry, and so stays -1
    decisions = part.decisions
    return replace(
        decisions,
        history=decisions.history + n_histories,
        group=decisions.group + n_installs,
        context=new_row_of[decisions.context],
    )


def _merged(name: str, column: NDArray[Any], slots: Ints, usual: NDArray[np.bool_]) -> NDArray[Any]:
    """Return a column of the usual decisions; a flat one gets its second dimension back."""
    if name not in FILL:
        return column[usual]
    is_slot = _slot_mask(slots[usual], max_usual_slots(slots))
    table = np.full(is_slot.shape, FILL[name], column.dtype)
    table[is_slot] = column[np.repeat(usual, slots)]
    return table


def _slot_mask(slots: Ints, width: int) -> NDArray[np.bool_]:
    """Return which entries of rows of `width` are slots of the row's slate, bool [m, width]."""
    return np.arange(width) < slots[:, None]
