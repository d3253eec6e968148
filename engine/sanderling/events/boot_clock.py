"""The boot of an identity: a random id, and a monotonic clock that starts with it.

Both change with the identity, so that events before and after a rotation cannot be linked by them.
"""

from __future__ import annotations

from sanderling.events import schema as wire
from sanderling.runtime.clock import Clock, Entropy


class BootClock:
    """A boot that begins now; `read` gives the clock of an event."""

    def __init__(self, clock: Clock, entropy: Entropy) -> None:
        self._id = entropy(16).hex()
        self._clock = clock
        self._start_ms = clock.mono_ms()

    def read(self) -> wire.ClockReading:
        """Return the wall clock, the milliseconds since this boot began, and its id."""
        return wire.ClockReading(
            self._clock.wall_ms(), self._clock.mono_ms() - self._start_ms, self._id
        )
