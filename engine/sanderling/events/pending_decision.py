"""A decision whose event is built when it is written, so that `recommend` does not wait for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sanderling.events.schema import Decision


@dataclass(frozen=True)
class PendingDecision:
    """What a queue must know of a decision before its event exists."""

    id: str
    """The id of the event and of its slate."""

    install: str
    """The id of the install."""

    user: str
    """The user's pseudonym."""

    slate: Sequence[Any]
    """The items shown, one for each slot of the event."""

    build: Callable[[], Decision]
    """Returns the event; it depends on nothing that changes after the decision."""

    @cached_property
    def event(self) -> Decision:
        """The event, built once: a write that fails is tried again."""
        return self.build()
