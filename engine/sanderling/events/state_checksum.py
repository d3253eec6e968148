"""The checksum of the events that made a user's state, by which training checks that it rebuilt the
same state."""

from __future__ import annotations

import hashlib

NO_EVENTS = "0" * 32
"""The checksum of an empty state."""


def next_checksum(checksum: str, item: str, kind: str) -> str:
    """Return the checksum after one more event: BLAKE2b-128 of the checksum so far, the item id and
    the kind."""
    content = f"{checksum}\0{item}\0{kind}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).hexdigest()
