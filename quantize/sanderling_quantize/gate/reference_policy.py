"""What a bundle is compared with: the teacher's vectors and the checkpoint's policy in float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sanderling.ranking.user_model import UserModel
from sanderling_quantize.gate.probe_protocol import MAX_DEPTH, SLATE, Events, NewItem
from sanderling_quantize.similarity import top_k

if TYPE_CHECKING:
    from sanderling_quantize.checkpoint import Checkpoint

MAX_HISTORY = 40
QUERIES = "queries.parquet"


@dataclass(frozen=True)
class TeacherTexts:
    """Texts with the teacher's vectors float32 [n, t]."""

    texts: Sequence[str]
    vectors: NDArray[np.float32]

    def first(self, count: int) -> TeacherTexts:
        """Return the first texts."""
        return TeacherTexts(self.texts[:count], self.vectors[:count])


@dataclass(frozen=True)
class TextSplit:
    """A catalog's texts: those that the student was trained on, and those held out."""

    seen: TeacherTexts
    unseen: TeacherTexts


@dataclass(frozen=True)
class HeldOutQueries:
    """Histories, and for each the ids that its user liked next.

    `sanderling_trainer.policy.holdout_queries` writes them. They are the end of the log that the
    checkpoint knows, and may have been learned from. Device and float policy rank the same ones,
    so that the ratio of the two is fair; neither figure alone estimates anything about future
    users.
    """

    histories: list[Events]
    relevant: list[set[str]]


@dataclass(frozen=True)
class NewItems:
    """Items of the catalog with typed attributes, as if they were new."""

    records: list[NewItem]

    vectors: NDArray[np.float32]
    """[r, d], where the lab places them."""


class FloatPolicy:
    """A checkpoint's policy: `vectors` float32 [n, d] and `biases` [n] of the items `ids`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        tensors = checkpoint.tensors
        settings = checkpoint.settings
        self.ids = [str(record["id"]) for record in checkpoint.records]
        self.vectors = tensors["item.vectors"]
        self.biases = tensors["item.biases"]
        self.project = tensors["item.project"]
        self._checkpoint = checkpoint
        self.kinds: list[str] = settings["kinds"]
        self.repeats: bool = settings["repeats"]
        self.epsilon: float = settings["config"]["epsilon"]
        self.depth: int = min(max(settings["config"]["pool"], SLATE), MAX_DEPTH)
        self._user_model = UserModel(tensors, self.kinds)
        self.row_of = {item: row for row, item in enumerate(self.ids)}

    def draw_histories(self, count: int, rng: np.random.Generator) -> list[Events]:
        """Return histories of 0 to 40 distinct items, drawn by the item biases, of any kinds."""
        weight = np.exp(self.biases.astype(np.float64) - self.biases.max())
        limit = max(1, min(MAX_HISTORY, len(self.ids) - SLATE))
        lengths = rng.integers(0, limit, size=count)
        drawn = [
            rng.choice(len(self.ids), length, replace=False, p=weight / weight.sum())
            for length in lengths
        ]
        return [
            [(self.ids[row], self.kinds[rng.integers(len(self.kinds))]) for row in rows]
            for rows in drawn
        ]

    def new_items(self, count: int, rng: np.random.Generator) -> NewItems:
        """Return some items with typed attributes; none in catalogs without any."""
        checkpoint = self._checkpoint
        n = len(self.vectors) if "item.features" in checkpoint.tensors else 0
        rows = rng.choice(n, min(count, n), replace=False)
        # The residual is what an item's own history adds, which a new one lacks.
        placed = self.vectors[rows] - checkpoint.tensors["item.residual"][rows]
        return NewItems([checkpoint.new_item(int(row)) for row in rows], placed)

    def user_vectors(self, histories: Sequence[Events]) -> NDArray[np.float32]:
        """Return the user vectors [q, d] after these histories."""
        vectors = []
        for history in histories:
            state = self._user_model.initial_state()
            for item, kind in history:
                state = self._user_model.step(state, self.vectors[self.row_of[item]], kind)
            vectors.append(self._user_model.user_vector(state))
        return np.stack(vectors)

    def rankings(self, users: NDArray[np.float32], histories: Sequence[Events]) -> list[list[str]]:
        """Return the exploration pool's ids in greedy order, for users [q, d]."""
        rankings = []
        for user, history in zip(users.astype(np.float64), histories, strict=True):
            scores = self.vectors @ user + self.biases
            if not self.repeats:
                scores[[self.row_of[item] for item, _ in history]] = -np.inf
            rankings.append([self.ids[row] for row in top_k(scores, self.depth)])
        return rankings

    def held_out_queries(self, folder: Path) -> HeldOutQueries:
        """Read the held-out queries of a checkpoint's folder; none where it has none."""
        import pyarrow.parquet as pq

        if not (folder / QUERIES).exists():
            return HeldOutQueries([], [])
        table = pq.read_table(folder / QUERIES).to_pydict()
        histories = [
            [(self.ids[row], self.kinds[kind]) for row, kind in zip(items, kinds, strict=True)]
            for items, kinds in zip(table["items"], table["kinds"], strict=True)
        ]
        relevant = [{self.ids[row] for row in rows} for rows in table["relevant"]]
        return HeldOutQueries(histories, relevant)
