"""The result of drawing a slate: ranks with their exact probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Draw:
    """One slate of K slots as ranks into the greedy order; all lists have K elements."""

    ranks: list[int]
    """A rank beyond the pool stands for a newcomer."""

    explored: list[bool]
    """Whether a slot was drawn by exploring, even if it then drew the best item left."""

    conditional: list[float]
    """The probability of each rank given the slots before it.

    Products of these are the prefix and joint propensities.
    """

    marginal: Sequence[float | None]
    """The probability, over all slates, that a slot shows its item; None without a closed form."""

    def with_fixed_prefix(self, fixed: int) -> Draw:
        """Return the slate with the `fixed` best items before it, which are certain."""
        certain = None if None in self.marginal else 1.0
        return Draw(
            [*range(fixed), *(rank + fixed for rank in self.ranks)],
            [False] * fixed + self.explored,
            [1.0] * fixed + self.conditional,
            [certain] * fixed + list(self.marginal),
        )
