"""Marks of installs: empty files named by the hash of the id, so that they do not contain it.

A tombstone marks an erased install: its uploads are refused and readers skip its events. A rotation
marks an install whose events cannot be learned from any more, cloned or incomplete: its devices are
asked to take a new identity.
"""

from __future__ import annotations

import re
from hashlib import sha256

from sanderling_trainer.event_log.object_store import ObjectStore

ERASED = "erased"
ROTATED = "rotated"

LOOKUP_CACHE_S = 10.0
"""For so long collectors cache whether a mark or a token exists."""

# Dead letters quote the line that was rejected, so that its quotes are escaped once more.
_INSTALL = re.compile(rb'"install\\*"\s*:\s*\\*"([0-9a-f]{32})\\*"')
_ESCAPE = re.compile(rb"\\+u00([0-7][0-9a-fA-F])")


def tombstone_file(install: str) -> str:
    """Return the name of an install's tombstone."""
    return _mark_file(ERASED, install)


def rotation_file(install: str) -> str:
    """Return the name of the mark that asks an install to rotate its identity."""
    return _mark_file(ROTATED, install)


def _mark_file(folder: str, install: str) -> str:
    return f"{folder}/{sha256(install.encode()).hexdigest()}"


def mentions(line: bytes, install: str) -> bool:
    """Return whether a line has an install's id anywhere, in plain text or in JSON escapes."""
    return install.encode() in _unescaped(line)


def _unescaped(line: bytes) -> bytes:
    if b"u00" not in line:
        return line
    return _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), line)


class Tombstones:
    """The installs that were erased, as of now."""

    def __init__(self, store: ObjectStore) -> None:
        self._files = frozenset(store.names(ERASED))

    def __contains__(self, install: str) -> bool:
        return bool(self) and tombstone_file(install) in self._files

    def __bool__(self) -> bool:
        return bool(self._files)

    def sent_by_erased(self, line: bytes) -> bool:
        """Return whether an erased install sent a line, be it a valid event or a broken one."""
        if not self:
            return False
        return any(install.decode() in self for install in _INSTALL.findall(_unescaped(line)))
