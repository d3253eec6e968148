"""A discrete-event simulation: simulated time, random streams and a trace, all from one seed."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable
from pathlib import Path

START_MS = 1_750_000_000_000


class Simulation:
    """The queue of scheduled actions, the true time, and a trace of what was done.

    It is the server's clock too. `folder` is cut out of the trace, because it has another name in
    each run.
    """

    def __init__(self, seed: int, folder: Path | None = None) -> None:
        self.seed = seed
        self.now = START_MS  # true time, ms since 1970
        self._folder = str(folder or "no folder")
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.trace: list[str] = []

    def random_stream(self, name: str) -> random.Random:
        """Return a random stream that is independent of those of other names."""
        return random.Random(f"{self.seed}/{name}")

    def wall_ms(self) -> int:
        return self.now

    def mono_ms(self) -> int:
        return self.now - START_MS + 1_000_000

    def advance(self, seconds: float) -> None:
        """Let time pass without running what is due."""
        self.now += round(seconds * 1000)

    def schedule(self, seconds: float, action: Callable[[], None]) -> None:
        """Run an action so many seconds from now; at equal times in the order of scheduling."""
        heapq.heappush(self._due, (self.now + round(seconds * 1000), next(self._order), action))

    def run_for(self, seconds: float) -> None:
        """Run what is due within so many seconds, in order. An action may call this too."""
        end = self.now + round(seconds * 1000)
        while self._due and self._due[0][0] <= end:
            due, _, action = heapq.heappop(self._due)
            self.now = max(self.now, due)
            action()
        self.now = max(self.now, end)

    def run_all(self) -> None:
        """Run everything that is scheduled, however late."""
        while self._due:
            self.run_for((self._due[0][0] - self.now) / 1000)

    def record(self, *words: object) -> None:
        """Add a line to the trace."""
        line = " ".join(map(str, (self.now - START_MS, *words)))
        self.trace.append(line.replace(self._folder, ""))

    def digest(self) -> str:
        """Return the SHA-256 of the trace."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()
