"""What a forked child must do first: whatever holds threads and locks is told, because none of them came along."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something with a thread or a lock of its own."""

    def in_child(self) -> None:
        """Called in a child right after the fork, before anything else runs there."""
        ...


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()


def watch(thing: Forkable) -> None:
    """Tell `thing` of every fork for as long as it lives."""
    _watched.add(thing)


def _tell() -> None:
    for thing in list(_watched):
        thing.in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_tell)
