"""What drawing a slate gives: ranks with their exact chances. Plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Draw:
    """One slate of K slots as ranks into the greedy order.

    `conditional[k]` is the probability of `ranks[k]` given the slots before it; products of it are the prefix and
    joint propensities. `marginal[k]` is the probability that slot k shows that item, over all slates, or None where the
    scheme has no closed form. `explored[k]` tells that slot k was drawn by exploring, even if it then drew the best
    item left.
    """

    ranks: list[int]
    explored: list[bool]
    conditional: list[float]
    marginal: Sequence[float | None]

    def behind(self, fixed: int) -> Draw:
        """Return the slate with the `fixed` best items before it, which are certain."""
        return Draw(
            [*range(fixed), *(rank + fixed for rank in self.ranks)],
            [False] * fixed + self.explored,
            [1.0] * fixed + self.conditional,
            [None if None in self.marginal else 1.0] * fixed + list(self.marginal),
        )
