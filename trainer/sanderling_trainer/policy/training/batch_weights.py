"""How much the batches of the click regression weigh, and so when it makes a step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.policy.training.batch_source import BatchSource
from sanderling_trainer.policy.training.batches import (
    DecisionPoints,
    TrainingBatch,
    decision_points,
)

FULL_STEP = 0.5
"""A step has at least this part of an average batch's weight."""


class BatchWeights:
    """How much each batch weighs, in average batches, and how many steps an epoch makes of them.

    AdamW moves a parameter as far for a small gradient as for a large one. An install whose
    histories are of unusual length fills batches of its own: by themselves they would each make a
    step, however little the install may weigh. So a batch waits until the gradients of others are
    added that weigh enough.
    """

    def __init__(
        self,
        slot_weight: Callable[[DecisionPoints], float],
        decisions: Decisions,
        source: BatchSource,
        is_supervised: bool,
        accumulate: int,
    ) -> None:
        """`slot_weight` returns the weight of all judged slots of some decisions."""
        self._slot_weight = slot_weight
        self._decisions = decisions
        self._is_supervised = is_supervised
        self.full_step = FULL_STEP * accumulate

        batches = list(source.training(np.random.default_rng(0)))
        sizes = np.array([self._sizes(batch) for batch in batches])
        total = np.maximum(sizes.sum(axis=0), np.finfo(float).tiny)
        # Of the batch that the average slot, or target, is in.
        self._average = np.maximum(np.square(sizes).sum(axis=0) / total, np.finfo(float).tiny)
        self.steps = max(1, int(self._count([self.of(batch) for batch in batches])))

    def of(self, batch: TrainingBatch) -> float:
        """Return a batch's weight: by its slots or by its targets, whichever is more."""
        return float((self._sizes(batch) / self._average).max())

    def _sizes(self, batch: TrainingBatch) -> np.ndarray:
        histories, targets = batch
        slots = self._slot_weight(decision_points(histories, self._decisions))
        weight = targets.weight * targets.influence
        return np.array([slots, float(weight.sum()) if self._is_supervised else 0.0])

    def _count(self, weights: list[float]) -> int:
        """Return into how many steps batches of these weights go."""
        steps = 0
        waiting = 0.0
        for weight in weights:
            waiting += weight
            if waiting >= self.full_step:
                steps += 1
                waiting = 0.0
        return steps
