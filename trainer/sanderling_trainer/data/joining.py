"""Joining the examples of the parts of a log, as if all of it had been read at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sanderling_trainer.data.examples import UNUSUAL, Decisions, Examples, Ints, usual_slots

NO_SLOT = {"items": -1, "logged": 1.0, "conditional": 1.0, "reward": 0.0, "judged": False, "ranks": 0}


def joined(parts: Sequence[Examples]) -> Examples:
    """Return the examples of all parts, at least one, in their order, without slates of unusual length; equal context
    vectors are one."""
    vectors: dict[bytes, int] = {}
    users, decisions, dropped = 0, [], sum((part.dropped for part in parts), Counter())
    slots = usual_slots(np.concatenate([part.decisions.slots for part in parts]))
    for part in parts:
        rows = [vectors.setdefault(vector.tobytes(), len(vectors)) for vector in part.contexts]
        usual = part.decisions.slots <= slots
        dropped[UNUSUAL] += int((~usual).sum())
        kept = part.decisions.of(usual).cut(slots)
        decisions.append(_moved(kept, users, np.array([*rows, -1], np.int64), slots))
        users += len(part.histories)
    width = parts[0].contexts.shape[1]
    return Examples(
        histories=[history for part in parts for history in part.histories],
        decisions=Decisions(
            **{name: np.concatenate([getattr(each, name) for each in decisions]) for name in vars(decisions[0])}
        ),
        contexts=np.frombuffer(b"".join(vectors), np.float32).reshape(-1, width).copy(),
        dropped=+dropped,
    )


def _moved(decisions: Decisions, users: int, rows: Ints, slots: int) -> Decisions:
    """Return a part's decisions behind so many users, with the new rows of its contexts, as many slots wide as all."""
    more = slots - decisions.items.shape[1]
    wide = {
        name: np.pad(getattr(decisions, name), ((0, 0), (0, more)), constant_values=value)
        for name, value in NO_SLOT.items()
    }
    context = rows[decisions.context]
    return replace(decisions, history=decisions.history + users, group=decisions.group + users, context=context, **wide)
