"""How long to wait between tries."""

from __future__ import annotations

import random

FIRST_DELAY_S = 30.0


OFFLINE_S = 60.0


FIRST_BACKOFF_S = 1.0


LAST_BACKOFF_S = 3000.0


class Backoff:
    """Full jitter below a doubling ceiling: the draw comes after the cap, so that a fleet does not march in step.

    The last ceiling spreads the return of a fleet, after an outage of an hour, over the hour that follows.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng, self._failures = rng, 0

    def first(self) -> float:
        """Return the seconds to wait before a first try: devices that start together must not all call at once."""
        return self._rng.uniform(0.0, FIRST_DELAY_S)

    def fail(self, at_least_s: float = 0.0) -> float:
        """Count a failure; return the seconds to wait, `at_least_s` or more."""
        ceiling = min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return at_least_s + self._rng.uniform(0.0, ceiling)

    def offline(self) -> float:
        """Return the seconds to wait where there is no network: no failure of the collector, who notices nothing."""
        return self._rng.uniform(OFFLINE_S / 2, OFFLINE_S)

    def reset(self) -> None:
        """Forget the failures."""
        self._failures = 0
