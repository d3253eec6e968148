"""Ranks by a checkpoint's float policy, for a first look before there is a bundle."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from sanderling_quantize.checkpoint import read
from sanderling_quantize.gate.reference_policy import FloatPolicy
from sanderling_quantize.similarity import top_k


class CheckpointRanker:
    """Ranks the items for a user's history, as a bundle of the checkpoint would, in float.

    Raises `FileNotFoundError` and `CheckpointError` where the folder is no checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        checkpoint = read(folder)
        self.release = int(checkpoint.settings["release"])
        self._policy = FloatPolicy(checkpoint)
        self._records = checkpoint.records

    def slate(
        self, user: str, history: Sequence[tuple[str, str]], k: int, exclude: Collection[str]
    ) -> list[tuple[str, float]]:
        """Return the k best items with their scores, best first, without some.

        Unknown items of the history are ignored, as on a device.
        """
        policy = self._policy
        known = [(item, kind) for item, kind in history if item in policy.row_of]
        (vector,) = policy.user_vectors([known])
        scores = policy.vectors @ vector.astype(np.float64) + policy.biases
        scores[[policy.row_of[item] for item in exclude if item in policy.row_of]] = -np.inf
        return [(policy.ids[row], float(scores[row])) for row in top_k(scores, k)]

    def title(self, item: str) -> str:
        """Return an item's title, its id where it is unknown."""
        row = self._policy.row_of.get(item)
        return item if row is None else str(self._records[row]["title"] or item)
