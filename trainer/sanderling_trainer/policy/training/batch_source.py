"""Where the warm start's lessons come from: histories in memory, or shards on disk, one of them in memory at a time.

Where several processes learn together each gets a part of its own. Refuses to know losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.shards import Shards
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.training import distributed
from sanderling_trainer.policy.training.batches import TrainingBatch, groups, lessons


class Source(Protocol):
    """`batches` is how many an epoch has, for this process."""

    batches: int

    def learned(self, rng: np.random.Generator) -> Iterator[TrainingBatch]:
        """Yield an epoch's lessons before the inner split, in an order of their own."""

    def validation(self) -> Iterator[TrainingBatch]:
        """Yield lessons after the inner split, always the same."""

    def counts(self, items: int) -> NDArray[np.int64]:
        """Return how many events each of the items has, int64 [n]."""


def source_of(
    histories: Sequence[History] | Shards, config: Config, repeats: bool, device: torch.device
) -> Source:
    """Return the source that fits."""
    made = OutOfCore if isinstance(histories, Shards) else InMemory
    return made(histories, config, repeats, device)  # type: ignore[arg-type]


class InMemory:
    """All lessons are made at once; the processes share out those of an epoch, some twice so that all get as many."""

    def __init__(
        self, histories: Sequence[History], config: Config, repeats: bool, device: torch.device
    ) -> None:
        self._histories = histories
        learned, self._validation = (
            lessons(histories, config, repeats, device, fresh) for fresh in (False, True)
        )
        self._learned = [lesson for lesson in learned if len(lesson[1])]
        self.batches = -(-len(self._learned) // distributed.size())

    def learned(self, rng: np.random.Generator) -> Iterator[TrainingBatch]:
        """Yield an epoch's lessons before the inner split, in an order of their own."""
        order = rng.permutation(len(self._learned))
        return (
            self._learned[at]
            for at in np.resize(order, self.batches * distributed.size())[
                distributed.rank() :: distributed.size()
            ]
        )

    def validation(self) -> Iterator[TrainingBatch]:
        """Yield this process's part of the lessons after the inner split."""
        return iter(self._validation[distributed.rank() :: distributed.size()])

    def counts(self, items: int) -> NDArray[np.int64]:
        """Return how many events each item has."""
        every = np.concatenate(
            [np.empty(0, np.int64), *(history.items for history in self._histories)]
        )
        return np.bincount(every[every >= 0], minlength=items)


class OutOfCore:
    """The shards of an epoch come in an order of its own, and so do the lessons of a shard.

    Each process reads shards of its own, and validates on one: users are spread by hash, so that one is a fair sample.
    Raises ValueError where there are fewer shards than processes.
    """

    def __init__(self, shards: Shards, config: Config, repeats: bool, device: torch.device) -> None:
        if len(shards) < distributed.size():
            raise ValueError(
                f"{shards.folder}: expected a shard for each of {distributed.size()} processes, found {len(shards)}"
            )
        self._shards, self._settings = shards, (config, repeats, device)
        every = (
            sum(1 for _ in groups(shards.lengths(at), config.batch_events))
            for at in range(len(shards))
        )
        self.batches = -(-sum(every) // distributed.size())

    def learned(self, rng: np.random.Generator) -> Iterator[TrainingBatch]:
        """Yield an epoch's lessons before the inner split, in an order of their own; draws once from `rng`."""
        rng = np.random.default_rng(rng.integers(2**63))
        for at in rng.permutation(len(self._shards))[distributed.rank() :: distributed.size()]:
            found = [
                lesson
                for lesson in lessons(self._shards.read(at), *self._settings, fresh=False)
                if len(lesson[1])
            ]
            for place in rng.permutation(len(found)):
                yield found[place]

    def validation(self) -> Iterator[TrainingBatch]:
        """Yield the lessons after the inner split of one shard."""
        recent = [
            history for history in self._shards.read(distributed.rank()) if history.fresh.any()
        ]
        return iter(lessons(recent, *self._settings, fresh=True))

    def counts(self, items: int) -> NDArray[np.int64]:
        """Return how many events each item has."""
        return self._shards.counts()
