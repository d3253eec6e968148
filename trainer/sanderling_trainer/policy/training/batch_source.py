"""Sources of training batches: histories in memory, or shards on disk, one in memory at a time.

Where several processes train together each gets its own part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.shards import Shards
from sanderling_trainer.policy.training import distributed
from sanderling_trainer.policy.training.batches import TrainingBatch, groups, training_batches
from sanderling_trainer.policy.training.context import TrainingContext


class BatchSource(Protocol):
    """Yields the batches of this process."""

    batches: int
    """How many an epoch has, about."""

    def training(self, rng: np.random.Generator) -> Iterator[TrainingBatch]:
        """Yield an epoch's batches before the inner split, in random order."""

    def validation(self) -> Iterator[TrainingBatch]:
        """Yield the batches after the inner split, always the same."""

    def counts(self, items: int) -> NDArray[np.int64]:
        """Return how many events each of the items has, int64 [n]."""


def batch_source(context: TrainingContext) -> BatchSource:
    """Return the source for a context's histories or shards."""
    if isinstance(context.histories, Shards):
        return OutOfCore(context, context.histories)
    return InMemory(context, context.histories)


class InMemory:
    """All batches are made at once.

    The processes divide those of an epoch; some are taken twice so that all processes get as many.
    """

    def __init__(
        self, context: TrainingContext, histories: Sequence[History], need_targets: bool = True
    ) -> None:
        """`need_targets` leaves out batches without targets, which teach cross-entropy nothing."""
        self._histories = histories
        training = training_batches(context, histories, validation=False)
        self._training = [batch for batch in training if len(batch[1]) or not need_targets]
        self._validation = training_batches(context, histories, validation=True)
        self.batches = -(-len(self._training) // distributed.size())

    def training(self, rng: np.random.Generator) -> Iterator[TrainingBatch]:
        """Yield an epoch's batches before the inner split, in random order."""
        order = rng.permutation(len(self._training))
        shared = np.resize(order, self.batches * distributed.size())
        own = shared[distributed.rank() :: distributed.size()]
        return (self._training[index] for index in own)

    def validation(self) -> Iterator[TrainingBatch]:
        """Yield this process's part of the batches after the inner split."""
        return iter(self._validation[distributed.rank() :: distributed.size()])

    def counts(self, items: int) -> NDArray[np.int64]:
        """Return how many events each item has."""
        columns = (history.items for history in self._histories)
        rows = np.concatenate([np.empty(0, np.int64), *columns])
        return np.bincount(rows[rows >= 0], minlength=items)


class OutOfCore:
    """An epoch reads the shards in random order, and the batches of each shard in random order.

    Each process reads its own shards and validates on one: users are assigned by hash, so that one
    shard is a fair sample.

    Raises ValueError where there are fewer shards than processes.
    """

    def __init__(self, context: TrainingContext, shards: Shards) -> None:
        if len(shards) < distributed.size():
            raise ValueError(
                f"{shards.folder}: expected a shard for each of {distributed.size()} processes,"
                f" found {len(shards)}; use fewer processes, or more shards"
            )
        self._context = context
        self._shards = shards

        events = context.config.batch_events
        total = sum(
            sum(1 for _ in groups(shards.lengths(index), events)) for index in range(len(shards))
        )
        self.batches = -(-total // distributed.size())

    def training(self, rng: np.random.Generator) -> Iterator[TrainingBatch]:
        """Yield an epoch's batches before the inner split, shuffled by one draw of `rng`."""
        # One draw, whatever the shards hold, keeps the processes' generators in step.
        rng = np.random.default_rng(rng.integers(2**63))
        order = rng.permutation(len(self._shards))
        for index in order[distributed.rank() :: distributed.size()]:
            histories = self._shards.read(index)
            made = training_batches(self._context, histories, validation=False)
            filled = [batch for batch in made if len(batch[1])]
            for place in rng.permutation(len(filled)):
                yield filled[place]

    def validation(self) -> Iterator[TrainingBatch]:
        """Yield the batches after the inner split of one shard."""
        histories = self._shards.read(distributed.rank())
        recent = [history for history in histories if history.is_validation.any()]
        return iter(training_batches(self._context, recent, validation=True))

    def counts(self, items: int) -> NDArray[np.int64]:
        """Return how many events each item has."""
        return self._shards.counts()
