"""The checksum of the events that made a user's state."""

from __future__ import annotations

import hashlib

NO_EVENTS = "0" * 32


def next_check(check: str, item: str, kind: str) -> str:
    """Return the checksum after one more event: BLAKE2b-128 of the checksum so far, the item id and the kind."""
    content = f"{check}\0{item}\0{kind}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=16).hexdigest()
