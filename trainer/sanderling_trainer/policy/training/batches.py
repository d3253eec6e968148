"""Histories, targets and decisions as padded tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.data.popularity import FEATURES, PopularityHistory
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.targets import Targets, targets_of

MAX_TABLE_VALUES = 2**27
NEVER = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Batch:
    """b histories of at most s events, padded at the end."""

    items: Tensor
    """int64 [b, s], catalog rows, -1 where padded."""

    kinds: Tensor
    """int64 [b, s], kinds of event, 0 where padded."""

    indices: np.ndarray
    """int64 [b], index of each history in the list that the batch is from."""


@dataclass(frozen=True)
class TargetBatch:
    """`Targets` of a batch as tensors; `row` is the history's row in the batch."""

    row: Tensor
    position: Tensor
    context: Tensor
    day: np.ndarray
    point: Tensor
    target: Tensor
    weight: Tensor
    influence: Tensor

    def __len__(self) -> int:
        return len(self.row)


TrainingBatch = tuple[Batch, TargetBatch]


@dataclass(frozen=True)
class DecisionPoints:
    """q decisions in a batch of histories."""

    batch: Batch

    indices: np.ndarray
    """int64 [q], index of each decision in the log."""

    row: Tensor
    """int64 [q], the history's row in the batch."""

    position: Tensor
    """int64 [q], how many events of the history precede the decision."""

    context: Tensor
    """int64 [q], row of the context table, -1 for none."""

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, rows: np.ndarray) -> DecisionPoints:
        """Return some of the points."""
        return DecisionPoints(
            self.batch, self.indices[rows], self.row[rows], self.position[rows], self.context[rows]
        )


class PopularityTable:
    """Popularity features of the days on which something was liked, on the network's device.

    Where all days would take more than `MAX_TABLE_VALUES` floats, every few of them are kept.
    """

    def __init__(self, popularity: PopularityHistory, device: torch.device) -> None:
        # Features change on the day after a like, so those of the day after the last one count too.
        days = np.unique(np.append(popularity.day, popularity.day.max(initial=-1) + 1))
        max_days = max(1, MAX_TABLE_VALUES // (popularity.items * FEATURES))
        self._days = days[:: -(-len(days) // max_days)]
        self._table = torch.from_numpy(popularity.features(self._days.tolist())).to(device)

    def biases(self, days: np.ndarray, weights: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return w · f of days int64 [q]: float32 [q, n], or [q, c] for c catalog rows.

        A day that the table lacks has the features of the last one before it.
        """
        entries = np.maximum(np.searchsorted(self._days, days, side="right") - 1, 0)
        # Many points share a day: multiply once a day.
        unique, inverse = (
            torch.from_numpy(part).to(weights.device)
            for part in np.unique(entries, return_inverse=True)
        )
        features = self._table[unique] if rows is None else self._table[unique[:, None], rows]
        return (features @ weights)[inverse]


def batches(histories: Sequence[History], events: int, device: torch.device) -> Iterator[Batch]:
    """Yield batches of at most about `events` events, histories of similar length together."""
    # A user without events has a state too, on which decisions were taken: one padded event.
    lengths = [max(1, len(history)) for history in histories]
    return (_batch(histories, indices, device) for indices in groups(lengths, events))


def groups(lengths: Sequence[int] | np.ndarray, events: int) -> Iterator[np.ndarray]:
    """Yield the indices int64 [b] of histories that form a batch; empty histories are left out.

    A batch has at most `events` events, padding included, or is a single longer history.
    """
    lengths = np.asarray(lengths, np.int64)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]

    start = 0
    while start < len(order):
        # In ascending order the last history of a batch is the longest and decides the padding.
        longest = lengths[order[start : start + events]]
        fits = longest * np.arange(1, len(longest) + 1) <= events
        stop = start + max(1, int(fits.sum()))
        yield order[start:stop]
        start = stop


def training_batches(
    context: TrainingContext, histories: Sequence[History], validation: bool | None
) -> list[TrainingBatch]:
    """Return the batches of some histories with their targets.

    validation: targets after the inner split if True, before it if False; all if None.
    """
    config = context.config
    device = context.device
    made = []
    for batch in batches(histories, config.batch_events, device):
        targets = targets_of(
            [histories[index] for index in batch.indices],
            config.visit_hours,
            config.horizon_days,
            context.repeats,
            validation,
        )
        made.append((batch, targets))

    shares = batch_shares([targets.weight.sum() for _, targets in made])
    for (batch, targets), share in zip(made, shares, strict=True):
        installs = np.array([histories[index].install for index in batch.indices])
        is_reported = installs[targets.row[targets.point]] >= 0
        targets.influence[is_reported] *= share
    return [(batch, _target_batch(targets, device)) for batch, targets in made]


def batch_shares(sizes: Sequence[float]) -> np.ndarray:
    """Return by how much the mean over each batch must be scaled, float64 [b] in [0, 1].

    A mean over few terms gives each of them much weight, and who sends histories of an unusual
    length chooses the batch. Scaled by its size over the size of the batch that the average term
    is in, at most 1, no batch gives a term more weight than a full one does.
    """
    terms = np.asarray(sizes, np.float64)
    typical = np.square(terms).sum() / max(terms.sum(), np.finfo(float).tiny)
    return np.minimum(1.0, terms / typical) if typical > 0.0 else np.ones(len(terms))


def _batch(histories: Sequence[History], indices: np.ndarray, device: torch.device) -> Batch:
    longest = max(1, *(len(histories[index]) for index in indices))

    def padded(name: str, fill: int) -> Tensor:
        out = np.full((len(indices), longest), fill, np.int64)
        for row, index in enumerate(indices):
            out[row, : len(histories[index])] = getattr(histories[index], name)
        return torch.from_numpy(out).to(device)

    return Batch(padded("items", -1), padded("kinds", 0), indices)


def _target_batch(targets: Targets, device: torch.device) -> TargetBatch:
    def tensor(name: str) -> Tensor:
        return torch.from_numpy(getattr(targets, name)).to(device)

    return TargetBatch(
        row=tensor("row"),
        position=tensor("position"),
        context=tensor("context"),
        day=targets.day,
        point=tensor("point"),
        target=tensor("target"),
        weight=tensor("weight"),
        influence=tensor("influence"),
    )


def first_seen(batch: Batch, items: int) -> Tensor:
    """Return int64 [b, n]: after how many events a user first has each item, `NEVER` if never."""
    b, s = batch.items.shape
    device = batch.items.device
    first = torch.full((b, items), NEVER, device=device)
    after = torch.arange(1, s + 1, device=device).expand(b, s)
    row = torch.arange(b, device=device)[:, None].expand(b, s)

    present = batch.items >= 0
    flat = row[present] * items + batch.items[present]
    return first.view(-1).scatter_reduce(0, flat, after[present], "amin").view(b, items)


def seen_before(first: Tensor, row: Tensor, position: Tensor) -> Tensor:
    """Return bool [q, n]: which items history `row[q]` has among its first `position[q]` events.

    `first` is what `first_seen` returned.
    """
    return first[row] <= position[:, None]


def seen_pairs(sequence: Tensor, row: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pairs (point, item) of items seen before a point, int64 [e] each.

    The sparse form of `seen_before`, for catalogs of which a user has seen little. `sequence` [b,
    s] holds items, -1 where padded.
    """
    device = position.device
    point = torch.repeat_interleave(torch.arange(len(position), device=device), position)
    event = torch.arange(len(point), device=device) - (position.cumsum(0) - position)[point]
    item = sequence[row[point], event]
    return point[item >= 0], item[item >= 0]


def decision_points(batch: Batch, decisions: Decisions) -> DecisionPoints:
    """Return the decisions that were taken for the histories of a batch."""
    row_of = np.full(int(decisions.history.max(initial=-1)) + 1, -1)
    has_decisions = batch.indices < len(row_of)
    row_of[batch.indices[has_decisions]] = np.flatnonzero(has_decisions)

    indices = np.flatnonzero(row_of[decisions.history] >= 0)
    row, position, context = (
        torch.from_numpy(column).to(batch.items.device)
        for column in (
            row_of[decisions.history[indices]],
            decisions.position[indices],
            decisions.context[indices],
        )
    )
    return DecisionPoints(batch, indices, row, position, context)
