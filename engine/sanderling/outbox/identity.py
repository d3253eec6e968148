"""Who an install is. Refuses to know where that is written down."""

from __future__ import annotations

from typing import NamedTuple

from sanderling.runtime.clock import Entropy


class Identity(NamedTuple):
    """The name of an install, 32 hex digits, and 32 bytes that nobody else has."""

    install: str
    secret: bytes

    @classmethod
    def fresh(cls, entropy: Entropy) -> Identity:
        """Return one that never was."""
        return cls(entropy(16).hex(), entropy(32))
