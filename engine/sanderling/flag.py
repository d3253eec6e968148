"""A flag that threads wait for, and that a signal handler may raise or lower amid the same.

`threading.Event` does that under a lock which the interrupted call may hold: the handler waits for ever.
"""

from __future__ import annotations

import threading


class Flag:
    """Lowered at first."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._raised = False

    def is_set(self) -> bool:
        """Tell whether it is raised."""
        return self._raised

    def set(self) -> None:
        """Raise it; whoever waits goes on."""
        with self._changed:
            self._raised = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Lower it."""
        self._raised = False

    def wait(self, timeout_s: float) -> None:
        """Wait until it is raised, or the time is over."""
        with self._changed:
            self._changed.wait_for(self.is_set, timeout_s)
