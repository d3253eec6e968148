"""How long to wait between attempts to upload."""

from __future__ import annotations

import random

MAX_START_DELAY_S = 30.0
"""The longest random delay before the first attempt of a process."""

OFFLINE_DELAY_S = 60.0
"""The longest delay without a network: uploading resumes within a minute of its return."""

FIRST_BACKOFF_S = 1.0
"""The ceiling of the delay after a first failure."""

MAX_BACKOFF_S = 3000.0
"""The highest ceiling: after an outage of an hour the devices return spread over the next hour."""

MAX_DOUBLINGS = 16  # 2**16 s is far above `MAX_BACKOFF_S`; more could overflow


class Backoff:
    """Exponential backoff with full jitter.

    The delay is drawn uniformly from 0 to a ceiling that doubles with every failure. The draw comes
    after the cap: capping the draws instead would bring many devices back at the same moment.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._failures = 0

    def start_delay_s(self) -> float:
        """Return how long to wait before the first attempt of a process, in seconds.

        Devices that start together, after a power cut for example, must not all call at once.
        """
        return self._rng.uniform(0.0, MAX_START_DELAY_S)

    def failure_delay_s(self, at_least_s: float = 0.0) -> float:
        """Count a failure; return how long to wait in seconds, `at_least_s` and a random share."""
        ceiling_s = FIRST_BACKOFF_S * 2.0 ** min(self._failures, MAX_DOUBLINGS)
        self._failures += 1
        return at_least_s + self._rng.uniform(0.0, min(MAX_BACKOFF_S, ceiling_s))

    def offline_delay_s(self) -> float:
        """Return how long to wait without a network, in seconds.

        This counts as no failure: the collector is not concerned, and the network may be back soon.
        """
        return self._rng.uniform(OFFLINE_DELAY_S / 2, OFFLINE_DELAY_S)

    def reset(self) -> None:
        """Forget the failures, after a success."""
        self._failures = 0
