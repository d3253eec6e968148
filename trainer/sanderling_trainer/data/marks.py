"""Marks of installs: files named by the hash of the id, so that not even a tombstone holds the id itself.

A tombstone says that an install was erased. A renewal says that nothing can be learned from it any more, for a copied
disk or a gap, and that its devices are to take other names.
"""

from __future__ import annotations

import re
from hashlib import sha256

from sanderling_trainer.data.store import Store

ERASED = "erased"
RENEWED = "renewed"

_ESCAPE = re.compile(rb"\\+u00([0-7][0-9a-fA-F])")


def tombstone(install: str) -> str:
    """Return the name of an install's tombstone."""
    return _named(ERASED, install)


def renewal(install: str) -> str:
    """Return the name of an install's renewal."""
    return _named(RENEWED, install)


def _named(folder: str, install: str) -> str:
    return f"{folder}/{sha256(install.encode()).hexdigest()}"


def mentions(row: bytes, install: str) -> bool:
    """Say whether a line holds an install's id anywhere, written plainly or with JSON's escapes."""
    plain = _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), row) if b"u00" in row else row
    return install.encode() in plain


class Erased:
    """All installs that have a tombstone now."""

    def __init__(self, store: Store) -> None:
        self._names = frozenset(store.names(ERASED))

    def __contains__(self, install: str) -> bool:
        return bool(self._names) and tombstone(install) in self._names
