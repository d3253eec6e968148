"""Time and fresh ids, passed in wherever they are needed so that tests can own them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Protocol

Entropy = Callable[[int], bytes]
"""Returns that many random bytes; `os.urandom` outside of tests."""


class Clock(Protocol):
    """Wall time steps and may be wrong; monotonic time never goes back, and starts anew at each boot."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970."""
        ...

    def mono_ms(self) -> int:
        """Return milliseconds since an arbitrary point of this boot."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def mono_ms(self) -> int:
        """Return milliseconds since boot."""
        return time.monotonic_ns() // 1_000_000


def uuid7(clock: Clock, entropy: Entropy = os.urandom) -> str:
    """Return a fresh UUID of version 7 (RFC 9562 §5.7) as 32 hex digits: 48 bits of time, then 74 random bits."""
    random = int.from_bytes(entropy(10), "big")
    time_bits = clock.wall_ms() & (2**48 - 1)
    high = time_bits << 16 | 0x7000 | random >> 68
    low = 0b10 << 62 | random & (2**62 - 1)
    return f"{high:016x}{low:016x}"


def time_of(id: str) -> int:
    """Return the wall ms since 1970 at which an id of `uuid7` was made, negative before 1970."""
    bits = int(id[:12], 16)
    return bits - (bits >> 47 << 48)
