"""What each past event did to a score: the recurrence without that event, for all events at once.

Leaving an event out also spares the events before it one step of decay, as it would on a device
that never saw it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.scorer import Scorer, Vector
from sanderling.ranking.user_model import UserModel

States = NDArray[np.float32]

FORGOTTEN = 2.0**-24
"""What is left of an event when float32 cannot tell it from rounding."""


class UserHistory(NamedTuple):
    """The user's state at a decision, and the events from which it was made."""

    state: Vector
    """The state, float32 [c]."""

    steps: tuple[tuple[str, str], ...]
    """The events that are known: item id and kind, oldest first."""

    events: int
    """How many events there were in all."""


class Counterfactuals(NamedTuple):
    """The states of a user to whom one thing never happened."""

    without_event: States
    """float32 [n, c]: row j lacks event j."""

    without_older: Vector
    """float32 [c]: only the n known events."""

    is_exact: bool
    """Whether the known events make the user's state bit for bit."""


def counterfactuals(history: UserHistory, scorer: Scorer) -> Counterfactuals:
    """Return the states without each known event, and without all that is older.

    What the known events do not explain of the state, events that are no longer kept, decays by one
    step less where an event is left out.
    """
    model = scorer.user_model
    inputs = [_input(scorer, item, kind) for item, kind in history.steps]
    moving = [j for j, entry in enumerate(inputs) if entry is not None]
    replayed = _leave_one_out(model, [entry for entry in inputs if entry is not None])

    unexplained = history.state - replayed[-1]
    is_exact = not unexplained.any()
    spared = unexplained
    if history.events > len(history.steps):
        # A channel that has forgotten the older events holds rounding alone.
        is_remembered = model.decay ** len(moving) > FORGOTTEN
        spared = np.divide(
            unexplained, model.decay, out=np.zeros_like(unexplained), where=is_remembered
        )

    without = np.tile(history.state, (len(inputs), 1))  # an unknown item changed no state
    without[moving] = replayed[:-1] if is_exact else replayed[:-1] + spared
    return Counterfactuals(without, replayed[-1], is_exact)


def _input(scorer: Scorer, item: str, kind: str) -> Vector | None:
    row = scorer.find(item)
    return None if row is None else scorer.user_model.input(scorer.vector(row), kind)


def _leave_one_out(model: UserModel, inputs: Sequence[Vector]) -> States:
    """Return the states [n + 1, c] without input j in row j, and of all n inputs in the last row.

    Row by row these are the same operations as `UserModel.step`, and the same bits.
    """
    states = np.tile(model.initial_state(), (len(inputs) + 1, 1))
    for j, entry in enumerate(inputs):
        spared = states[j].copy()
        states = model.decay * states + entry
        states[j] = spared
    return states
