"""A world in which everything follows from one integer: time, chance, and the order in which things
happen."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable
from pathlib import Path

START_MS = 1_750_000_000_000


class World:
    """True time in milliseconds, what is due when, and a trace of what was done; it is the lab's
    clock too.

    `folder`, where it all lies, is another one each time, and is left out of the trace.
    """

    def __init__(self, seed: int, folder: Path | None = None) -> None:
        self.seed, self.now = seed, START_MS
        self._folder = str(folder or "no folder")
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.trace: list[str] = []

    def chance(self, name: str) -> random.Random:
        """Return a random stream of its own, independent of all others."""
        return random.Random(f"{self.seed}/{name}")

    def wall_ms(self) -> int:
        return self.now

    def mono_ms(self) -> int:
        return self.now - START_MS + 1_000_000

    def take(self, seconds: float) -> None:
        """Let time pass."""
        self.now += round(seconds * 1000)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + round(seconds * 1000), next(self._order), action))

    def run(self, seconds: float) -> None:
        """Run what is due within so many seconds, in order; re-entrant."""
        end = self.now + round(seconds * 1000)
        while self._due and self._due[0][0] <= end:
            due, _, action = heapq.heappop(self._due)
            self.now = max(self.now, due)
            action()
        self.now = max(self.now, end)

    def settle(self) -> None:
        """Run everything that is due, however late."""
        while self._due:
            self.run((self._due[0][0] - self.now) / 1000)

    def note(self, *words: object) -> None:
        line = " ".join(map(str, (self.now - START_MS, *words)))
        self.trace.append(line.replace(self._folder, ""))

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()
