"""Gaps: users whose state training cannot rebuild, because an event that updated it was lost."""

from __future__ import annotations

from collections.abc import Iterable, Set
from threading import Lock

from sanderling.outbox.database import OutboxHeader
from sanderling.outbox.state_table import GAP, StateTable

MAX_GAPS = 10_000
"""The bound on gaps, in memory and in the file."""


def gap_key(pseudonym: str) -> str:
    """Return the key in the state table that marks a pseudonym's gap."""
    return GAP + pseudonym


class StateGaps:
    """The pseudonyms with a gap, each until it is cleared. Thread-safe.

    A gap is open as soon as it is added, and marked in the file by the next write. Of more than
    `MAX_GAPS` some are discarded; training then drops the decisions of those users.
    """

    def __init__(self, states: StateTable) -> None:
        self._states = states
        self._lock = Lock()
        self._open = {key.removeprefix(GAP) for key in states.with_prefix(GAP)}
        self._unmarked: set[str] = set()

    def __contains__(self, pseudonym: str) -> bool:
        return pseudonym in self._open

    def add(self, pseudonyms: Set[str]) -> None:
        """Add gaps, which the next write is to mark in the file."""
        with self._lock:
            self._unmarked |= pseudonyms
            self._remember(pseudonyms)

    def mark(self, header: OutboxHeader, pseudonyms: Iterable[str]) -> None:
        """Mark gaps in the file, inside a transaction."""
        pseudonyms = set(pseudonyms)
        for pseudonym in pseudonyms:
            self._states.put(header, gap_key(pseudonym), b"")
        with self._lock:
            self._remember(pseudonyms)

    def unmarked(self) -> frozenset[str]:
        """Return the gaps that are not marked in the file yet."""
        with self._lock:
            return frozenset(self._unmarked)

    def confirm_marked(self, pseudonyms: Set[str]) -> None:
        """Remove gaps whose marks have been committed from the unmarked ones."""
        with self._lock:
            self._unmarked -= pseudonyms

    def discard(self, pseudonyms: Set[str]) -> None:
        """Discard gaps; the caller deletes their marks from the file."""
        with self._lock:
            self._unmarked -= pseudonyms
            self._open -= pseudonyms

    def discard_all(self) -> None:
        """Discard all gaps; the caller deletes their marks from the file."""
        with self._lock:
            self._unmarked.clear()
            self._open.clear()

    def _remember(self, pseudonyms: Set[str]) -> None:
        self._open |= pseudonyms
        while len(self._open) > MAX_GAPS:
            self._open.pop()
        self._unmarked &= self._open
