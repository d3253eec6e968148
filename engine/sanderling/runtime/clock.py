"""Clocks and ids, passed in wherever they are needed so that tests can replace them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from io import BytesIO
from typing import Protocol

Entropy = Callable[[int], bytes]
"""Returns that many random bytes: a `SystemEntropy` outside of tests."""

READ_AHEAD = 4096  # bytes of randomness

OLDEST_MS = 1_735_689_600_000
"""2025-01-01 in ms since 1970. No event is older, so an earlier wall clock has not been set."""


class Clock(Protocol):
    """Wall time may step and may be wrong; monotonic time never goes back and restarts at boot."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970, never less than 0."""
        ...

    def mono_ms(self) -> int:
        """Return milliseconds since an arbitrary moment of this boot."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970; 0 where the clock shows an earlier time."""
        return max(0, time.time_ns() // 1_000_000)

    def mono_ms(self) -> int:
        """Return milliseconds since boot."""
        return time.monotonic_ns() // 1_000_000


class SystemEntropy:
    """The system's random bytes, read ahead. Thread-safe, and for each process its own.

    Each `os.urandom` lets go of the GIL, so that a decision that needs ten bytes would wait for
    whatever another thread computes. There is no lock, since a fork could copy it while it is held:
    reading from a `BytesIO` is one step, also for other threads and for signal handlers.
    """

    def __init__(self) -> None:
        self._ahead = BytesIO()
        self._process = os.getpid()

    def __call__(self, size: int) -> bytes:
        """Return random bytes, none of which anybody got before."""
        if size > READ_AHEAD:
            return os.urandom(size)
        if self._process == os.getpid():
            found = self._ahead.read(size)
            if len(found) == size:
                return found
        ahead = BytesIO(os.urandom(READ_AHEAD))
        found = ahead.read(size)
        # In this order: a thread that finds its own process must not find the parent's bytes.
        self._ahead = ahead
        self._process = os.getpid()
        return found


def uuid7(now_ms: int, entropy: Entropy = os.urandom) -> str:
    """Return a new UUID of version 7 (RFC 9562, section 5.7) as 32 hex digits.

    It holds 48 bits of wall time, then 74 random bits.
    """
    random = int.from_bytes(entropy(10), "big")
    high = now_ms << 16 | 0x7000 | random >> 68
    low = 0b10 << 62 | random & (2**62 - 1)
    return f"{high:016x}{low:016x}"


def time_of(id: str) -> int:
    """Return the wall time, in ms since 1970, at which `uuid7` made an id."""
    return int(id[:12], 16)
