"""Joining the examples of the parts of a log, as if all of it had been read at once.

Refuses to know events.
"""

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

FEW = 1000
UNUSUAL = "a slate longer than those of 99 in 100 decisions"
NO_SLOT = {
    "items": -1,
    "logged": 1.0,
    "conditional": 1.0,
    "reward": 0.0,
    "judged": False,
    "ranks": 0,
}


def joined(parts: Iterable[Examples]) -> Examples:
    """Return the examples of all parts, at least one, in their order, without slates of unusual length; equal context
    vectors are one.

    What is unusual is known at the end. Until then no more is kept of a part than the slots that its slates have.
    """
    columns: dict[str, list[NDArray]] = defaultdict(list)
    histories: list[History] = []
    vectors: dict[bytes, int] = {}
    dropped, width = Counter[str](), 0
    for part in parts:
        rows = np.array(
            [*(vectors.setdefault(vector.tobytes(), len(vectors)) for vector in part.contexts), -1]
        )
        inside = _inside(part.decisions.slots, part.decisions.items.shape[1])
        for name, column in vars(_moved(part.decisions, len(histories), rows)).items():
            columns[name].append(column[inside] if name in NO_SLOT else column)
        histories += part.histories
        dropped += part.dropped
        width = part.contexts.shape[1]
    slots = np.concatenate(columns["slots"])
    usual = slots <= usual_slots(slots)
    dropped[UNUSUAL] += int((~usual).sum())
    return Examples(
        histories=histories,
        decisions=Decisions(
            **{
                name: _kept(name, np.concatenate(columns.pop(name)), slots, usual)
                for name in list(columns)
            }
        ),
        contexts=np.frombuffer(b"".join(vectors), np.float32).reshape(-1, width).copy(),
        dropped=+dropped,
    )


def usual_slots(slots: Ints) -> int:
    """Return the slots of the longest slate, where there are many decisions without the longest one in a hundred.

    Columns are as wide as that: one long slate must not make those of a whole fleet wide.
    """
    return int(
        slots.max(initial=1) if len(slots) <= FEW else np.quantile(slots, 0.99, method="higher")
    )


def _moved(decisions: Decisions, users: int, rows: Ints) -> Decisions:
    """Return a part's decisions behind so many users, with the new rows of its contexts."""
    context = rows[decisions.context]
    return replace(
        decisions, history=decisions.history + users, group=decisions.group + users, context=context
    )


def _kept(name: str, column: NDArray[Any], slots: Ints, usual: NDArray[np.bool_]) -> NDArray[Any]:
    """Return a column of the usual decisions, as wide as the longest of them if it has something of each slot."""
    if name not in NO_SLOT:
        return column[usual]
    inside = _inside(slots[usual], usual_slots(slots))
    wide = np.full(inside.shape, NO_SLOT[name], column.dtype)
    wide[inside] = column[np.repeat(usual, slots)]
    return wide


def _inside(slots: Ints, width: int) -> NDArray[np.bool_]:
    """Return which of so many places in a row are slots of its slate, bool [m, width]."""
    return np.arange(width) < slots[:, None]
