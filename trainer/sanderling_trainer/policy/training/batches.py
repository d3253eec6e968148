"""Histories and decisions, padded into tensors. Refuses to know losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.data.popularity import FEATURES, Trends
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.training.targets import Points, points_of

MOST_TREND_VALUES = 2**27


@dataclass(frozen=True)
class Batch:
    """b histories of at most s events, padded with -1; `rows` int64 [b] are their places in the list."""

    items: Tensor
    kinds: Tensor
    rows: np.ndarray


@dataclass(frozen=True)
class TargetBatch:
    """Points as tensors: see `Points`. `weight` [p] are those of the pairs."""

    place: Tensor
    at: Tensor
    context: Tensor
    day: np.ndarray
    point: Tensor
    target: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.place)


TrainingBatch = tuple[Batch, TargetBatch]


class TrendTable:
    """The trend features of the days on which something was liked, on the device of the network; of every few such days
    if they are too many."""

    def __init__(self, trends: Trends, device: torch.device) -> None:
        days = np.unique(np.append(trends.day, trends.day.max(initial=-1) + 1))
        most = max(1, MOST_TREND_VALUES // (trends.items * FEATURES))
        self._days = days[:: -(-len(days) // most)]
        self._table = torch.from_numpy(trends.features(self._days.tolist())).to(device)

    def biases(self, days: np.ndarray, weights: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return w · f float32 [q, n] for days int64 [q], [q, c] for some rows; between days the one before stands."""
        places = np.maximum(np.searchsorted(self._days, days, side="right") - 1, 0)
        own, place = (
            torch.from_numpy(part).to(weights.device)
            for part in np.unique(places, return_inverse=True)
        )
        table = self._table[own] if rows is None else self._table[own[:, None], rows]
        return (table @ weights)[place]


def batches(histories: Sequence[History], events: int, device: torch.device) -> Iterator[Batch]:
    """Yield batches of about `events` events, histories of like length together."""
    return (
        _batch(histories, group, device)
        for group in groups([len(history) for history in histories], events)
    )


def groups(lengths: Sequence[int] | np.ndarray, events: int) -> Iterator[np.ndarray]:
    """Yield which histories go together, int64 [b]: no more than `events` events when padded, or one alone."""
    lengths = np.asarray(lengths, np.int64)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    start = 0
    while start < len(order):
        longest = lengths[order[start : start + events]]
        fits = longest * np.arange(1, len(longest) + 1) <= events
        stop = start + max(1, int(fits.sum()))
        yield order[start:stop]
        start = stop


def lessons(
    histories: Sequence[History],
    config: Config,
    repeats: bool,
    device: torch.device,
    fresh: bool | None,
) -> list[TrainingBatch]:
    """Return the batches with what each asks: after the inner split (`fresh`), before it, or everywhere (None)."""
    asked = (config.visit_hours, config.horizon_days, repeats, fresh)
    return [
        (batch, _questions(points_of([histories[row] for row in batch.rows], *asked), device))
        for batch in batches(histories, config.batch_events, device)
    ]


def _batch(histories: Sequence[History], rows: np.ndarray, device: torch.device) -> Batch:
    longest = max(len(histories[row]) for row in rows)

    def padded(name: str, fill: int) -> Tensor:
        out = np.full((len(rows), longest), fill, np.int64)
        for at, row in enumerate(rows):
            out[at, : len(histories[row])] = getattr(histories[row], name)
        return torch.from_numpy(out).to(device)

    return Batch(padded("items", -1), padded("kinds", 0), rows)


def _questions(points: Points, device: torch.device) -> TargetBatch:
    columns = (points.place, points.at, points.context)
    pairs = (points.point, points.target, points.weight)
    place, at, context = (torch.from_numpy(column).to(device) for column in columns)
    point, target, weight = (torch.from_numpy(column).to(device) for column in pairs)
    return TargetBatch(place, at, context, points.day, point, target, weight)


def first_seen(batch: Batch, items: int) -> Tensor:
    """Return int64 [b, n]: after how many events a user first has each item, 1 for the first event's; huge if never."""
    b, s = batch.items.shape
    first = torch.full((b, items), torch.iinfo(torch.int64).max, device=batch.items.device)
    after = torch.arange(1, s + 1, device=batch.items.device).expand(b, s)
    known = batch.items >= 0
    history = torch.arange(b, device=batch.items.device)[:, None].expand(b, s)
    flat = history[known] * items + batch.items[known]
    return first.view(-1).scatter_reduce(0, flat, after[known], "amin").view(b, items)


def seen_at(first: Tensor, place: Tensor, at: Tensor) -> Tensor:
    """Return bool [q, n]: which items history `place[q]` had among its first `at[q]` events."""
    return first[place] <= at[:, None]


def earlier(sequence: Tensor, place: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
    """Return which points had which items before, int64 [e] each: those of `sequence` [b, s] in its first `at` events.

    The same as `seen_at` where most items are seen by nobody; padding counts for nothing.
    """
    point = torch.repeat_interleave(torch.arange(len(at), device=at.device), at)
    event = torch.arange(len(point), device=at.device) - (at.cumsum(0) - at)[point]
    item = sequence[place[point], event]
    return point[item >= 0], item[item >= 0]


def decisions_in(batch: Batch, decisions: Decisions) -> tuple[np.ndarray, Tensor]:
    """Return which decisions were taken for the histories of a batch, and the history's place in it, int64 each."""
    place = np.full(int(decisions.history.max(initial=-1)) + 1, -1)
    inside = batch.rows[batch.rows < len(place)]
    place[inside] = np.flatnonzero(batch.rows < len(place))
    chosen = np.flatnonzero(place[decisions.history] >= 0)
    return chosen, torch.from_numpy(place[decisions.history[chosen]]).to(batch.items.device)
