"""Marks of installs: files named by the hash of the id, so that not even a tombstone holds the id itself.

A tombstone says that an install was erased. A rotation says that nothing can be learned from it any more, for a copied
disk or a gap, and that its devices are to take other names.
"""

from __future__ import annotations

import re
from hashlib import sha256

from sanderling_trainer.event_log.object_store import ObjectStore

ERASED = "erased"
ROTATED = "rotated"

_INSTALL = re.compile(rb'"install\\*"\s*:\s*\\*"([0-9a-f]{32})\\*"')
_ESCAPE = re.compile(rb"\\+u00([0-7][0-9a-fA-F])")


def tombstone(install: str) -> str:
    """Return the name of an install's tombstone."""
    return _named(ERASED, install)


def rotation(install: str) -> str:
    """Return the name of an install's rotation."""
    return _named(ROTATED, install)


def _named(folder: str, install: str) -> str:
    return f"{folder}/{sha256(install.encode()).hexdigest()}"


def mentions(row: bytes, install: str) -> bool:
    """Say whether a line holds an install's id anywhere, written plainly or with JSON's escapes."""
    return install.encode() in _plain(row)


def _plain(row: bytes) -> bytes:
    return (
        _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), row) if b"u00" in row else row
    )


class Erased:
    """All installs that have a tombstone now."""

    def __init__(self, store: ObjectStore) -> None:
        self._names = frozenset(store.names(ERASED))

    def __contains__(self, install: str) -> bool:
        return bool(self) and tombstone(install) in self._names

    def __bool__(self) -> bool:
        return bool(self._names)

    def sent(self, row: bytes) -> bool:
        """Say whether a line is, or was meant to be, an event of one of them."""
        return bool(self) and any(found.decode() in self for found in _INSTALL.findall(_plain(row)))


MAX_AGE_S = 10.0
