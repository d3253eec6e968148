"""The float policy's side of the comparison: what the checkpoint itself would recommend, after which histories.

Refuses to know bundles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.user_model import UserModel
from sanderling_quantize.gate.probe_protocol import DEEPEST, SLATE, Events
from sanderling_quantize.similarity import best

if TYPE_CHECKING:
    from sanderling_quantize.checkpoint import Checkpoint

LONGEST = 40
QUERIES = "queries.parquet"


@dataclass(frozen=True)
class Queries:
    """Histories (item id, kind), and for each the ids that its user liked next: `sanderling_trainer.policy.holdout_queries`.

    They are the end of the log that the checkpoint knows, and may have been learned from. Device and float policy rank
    the same ones, so that the ratio of the two is fair; neither figure alone is a claim about users to come.
    """

    histories: list[Events]
    relevant: list[set[str]]


class FloatPolicy:
    """A checkpoint's policy in float: `vectors` float32 [n, d] and `biases` [n] of the items `ids`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        tensors, settings = checkpoint.tensors, checkpoint.settings
        self.ids = [str(record["id"]) for record in checkpoint.records]
        self.vectors, self.biases = tensors["item.vectors"], tensors["item.biases"]
        self.project = tensors["item.project"]
        self.kinds: list[str] = settings["kinds"]
        self.repeats: bool = settings["repeats"]
        self.epsilon: float = settings["config"]["epsilon"]
        self.depth: int = min(max(settings["config"]["pool"], SLATE), DEEPEST)
        self._state = UserModel(tensors, self.kinds)
        self._row = {item: row for row, item in enumerate(self.ids)}

    def histories(self, count: int, rng: np.random.Generator) -> list[Events]:
        """Draw histories of 0 to 40 items by the policy's own item biases, none twice, of any kinds."""
        chance = np.exp(self.biases.astype(np.float64) - self.biases.max())
        lengths = rng.integers(0, max(1, min(LONGEST, len(self.ids) - SLATE)), size=count)
        rows = [
            rng.choice(len(self.ids), length, replace=False, p=chance / chance.sum())
            for length in lengths
        ]
        return [
            [(self.ids[row], self.kinds[rng.integers(len(self.kinds))]) for row in drawn]
            for drawn in rows
        ]

    def users(self, histories: Sequence[Events]) -> NDArray[np.float32]:
        """Return the user vectors [q, d] after these histories."""
        found = []
        for history in histories:
            state = self._state.initial_state()
            for item, kind in history:
                state = self._state.step(state, self.vectors[self._row[item]], kind)
            found.append(self._state.user_vector(state))
        return np.stack(found)

    def rankings(self, users: NDArray[np.float32], histories: Sequence[Events]) -> list[list[str]]:
        """Return the ids of the exploration pool in greedy order, for users [q, d] with these histories."""
        found = []
        for user, history in zip(users.astype(np.float64), histories, strict=True):
            scores = self.vectors @ user + self.biases
            if not self.repeats:
                scores[[self._row[item] for item, _ in history]] = -np.inf
            found.append([self.ids[row] for row in best(scores, self.depth)])
        return found

    def queries(self, folder: Path) -> Queries:
        """Read the checkpoint's held-out queries; none where it has none."""
        import pyarrow.parquet as pq

        if not (folder / QUERIES).exists():
            return Queries([], [])
        table = pq.read_table(folder / QUERIES).to_pydict()
        return Queries(
            [
                [(self.ids[row], self.kinds[kind]) for row, kind in zip(items, kinds, strict=True)]
                for items, kinds in zip(table["items"], table["kinds"], strict=True)
            ],
            [{self.ids[row] for row in rows} for rows in table["relevant"]],
        )
