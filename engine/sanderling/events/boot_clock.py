"""One run of the device under one name, and its clocks: they start with it, so that nothing in them tells of another.

Refuses to know what happens in it.
"""

from __future__ import annotations

from sanderling.events import schema as wire
from sanderling.runtime.clock import Clock, Entropy


class BootClock:
    """An id, and readings of the clocks for events that happen now."""

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._id, self._clock, self._start_ms = entropy(16).hex(), clock, clock.mono_ms()

    def read(self) -> wire.Clock:
        """Return the wall clock, and the milliseconds since this boot began."""
        return wire.Clock(self._clock.wall_ms(), self._clock.mono_ms() - self._start_ms, self._id)
