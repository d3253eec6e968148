"""How many events the next batch takes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class BatchSize:
    """How many events to send. 413 halves the cap, success adds one; a refused batch is searched by halving."""

    most: int
    cap: int = field(init=False)
    suspects: int = 0

    def __post_init__(self) -> None:
        self.cap = self.most

    def size(self) -> int:
        return min(self.cap, max(1, self.suspects // 2)) if self.suspects else self.cap

    def passed(self, count: int) -> None:
        self.suspects = max(0, self.suspects - count)
        self.cap = min(self.most, self.cap + 1)

    def found(self) -> None:
        self.suspects, self.cap = 0, self.most
