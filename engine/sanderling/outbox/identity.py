"""The identity of an install."""

from __future__ import annotations

from typing import NamedTuple

from sanderling.runtime.clock import Entropy


class Identity(NamedTuple):
    """The install id, 32 hex digits, and a secret of 32 bytes that never leaves the device."""

    install: str
    secret: bytes

    @classmethod
    def fresh(cls, entropy: Entropy) -> Identity:
        """Return a new random identity."""
        return cls(entropy(16).hex(), entropy(32))
