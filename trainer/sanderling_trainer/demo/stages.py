"""The stages of the demo: what each took, and one line about what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stages:
    """Times stages, and reports each when it has ended."""

    outcome: str
    """What the current stage came to, for its line."""

    def __init__(self, report: Callable[[str], None]) -> None:
        """`report` gets one line after each stage."""
        self.seconds: dict[str, float] = {}
        self.outcome = ""
        self._report = report

    @property
    def total(self) -> float:
        """Seconds of all stages, without the parts of a stage (`train: encode`)."""
        return sum(spent for name, spent in self.seconds.items() if ": " not in name)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage, then pass on one line with the `outcome` that it set."""
        self.outcome = ""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
        self._report(f"{name:<12}{self.seconds[name]:6.1f} s  {self.outcome}")
