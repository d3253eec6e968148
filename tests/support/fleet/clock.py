"""A device's simulated clock: wrong by an offset, or frozen."""

from __future__ import annotations

from tests.support.fleet.simulation import Simulation

DAY_S = 86_400.0
YEAR_S = 365 * DAY_S
# Seconds that a device's clock is off at first; at -55 years it is in 1970, as if never set.
OFFSETS_S = [0, 0, -2 * YEAR_S, 10 * YEAR_S, 3600, -55 * YEAR_S, -10 * YEAR_S]


class DeviceClock:
    """A wall clock that is off by `offset` ms or frozen; monotonic time starts at each boot."""

    def __init__(self, simulation: Simulation, offset: int) -> None:
        self.simulation = simulation
        self.offset = offset
        self.boot = simulation.now
        self.frozen: int | None = None

    def wall_ms(self) -> int:
        return max(0, self.simulation.now + self.offset) if self.frozen is None else self.frozen

    def mono_ms(self) -> int:
        return self.simulation.now - self.boot
