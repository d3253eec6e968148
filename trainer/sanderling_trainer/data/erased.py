"""Tombstones of installs: a file named by the hash of the id, so that not even the tombstone holds the id itself."""

from __future__ import annotations

import re
from hashlib import sha256

from sanderling_trainer.data.store import Store

FOLDER = "erased"

_ESCAPE = re.compile(rb"\\+u00([0-7][0-9a-fA-F])")


def tombstone(install: str) -> str:
    """Return the name of an install's tombstone."""
    return f"{FOLDER}/{sha256(install.encode()).hexdigest()}"


def mentions(row: bytes, install: str) -> bool:
    """Say whether a line holds an install's id anywhere, written plainly or with JSON's escapes."""
    plain = _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), row) if b"u00" in row else row
    return install.encode() in plain


class Erased:
    """All installs that have a tombstone now."""

    def __init__(self, store: Store) -> None:
        self._names = frozenset(store.names(FOLDER))

    def __contains__(self, install: str) -> bool:
        return bool(self._names) and tombstone(install) in self._names
