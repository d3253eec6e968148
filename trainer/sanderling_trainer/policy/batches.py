"""Histories and decisions, padded into tensors. Refuses to know losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sanderling_trainer.data.examples import Decisions, History
from sanderling_trainer.data.trends import FEATURES, Trends
from sanderling_trainer.policy.config import Config
from sanderling_trainer.policy.points import Points, points_of

MOST_TREND_VALUES = 2**27


@dataclass(frozen=True)
class Batch:
    """b histories of at most s events, padded with -1; `rows` int64 [b] are their places in the list."""

    items: Tensor
    kinds: Tensor
    rows: np.ndarray


@dataclass(frozen=True)
class Questions:
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


Lesson = tuple[Batch, Questions]


class TrendTable:
    """The trend features of many days at hand, on the device of the network; of every few days if they are too many."""

    def __init__(self, trends: Trends, device: torch.device) -> None:
        self._first, last = (int(trends.day[0]), int(trends.day[-1]) + 1) if len(trends.day) else (0, 0)
        most = max(1, MOST_TREND_VALUES // (trends.items * FEATURES))
        self._stride = -(-(last - self._first + 1) // most)
        self._table = torch.from_numpy(trends.features(range(self._first, last + 1, self._stride))).to(device)

    def biases(self, days: np.ndarray, weights: Tensor) -> Tensor:
        """Return w · f float32 [q, n] for days int64 [q]; the last day known stands for later ones."""
        places = np.clip((days - self._first) // self._stride, 0, len(self._table) - 1)
        own, place = np.unique(places, return_inverse=True)
        return (self._table[torch.from_numpy(own).to(weights.device)] @ weights)[torch.from_numpy(place)]


def batches(histories: Sequence[History], events: int, device: torch.device) -> Iterator[Batch]:
    """Yield batches of about `events` events, histories of like length together."""
    order = sorted((row for row, history in enumerate(histories) if len(history)), key=lambda row: len(histories[row]))
    groups: list[list[int]] = [[]]
    for row in order:
        if groups[-1] and (len(groups[-1]) + 1) * len(histories[row]) > events:
            groups.append([])
        groups[-1].append(row)
    return (_batch(histories, group, device) for group in groups if group)


def lessons(
    histories: Sequence[History], config: Config, repeats: bool, device: torch.device, fresh: bool | None
) -> list[Lesson]:
    """Return the batches with what each asks: after the inner split (`fresh`), before it, or everywhere (None)."""
    asked = (config.visit_hours, config.horizon_days, repeats, fresh)
    return [
        (batch, _questions(points_of([histories[row] for row in batch.rows], *asked), device))
        for batch in batches(histories, config.batch_events, device)
    ]


def _batch(histories: Sequence[History], rows: list[int], device: torch.device) -> Batch:
    longest = max(len(histories[row]) for row in rows)

    def padded(name: str, fill: int) -> Tensor:
        out = np.full((len(rows), longest), fill, np.int64)
        for at, row in enumerate(rows):
            out[at, : len(histories[row])] = getattr(histories[row], name)
        return torch.from_numpy(out).to(device)

    return Batch(padded("items", -1), padded("kinds", 0), np.array(rows))


def _questions(points: Points, device: torch.device) -> Questions:
    columns = (points.place, points.at, points.context)
    pairs = (points.point, points.target, points.weight)
    return Questions(
        *(torch.from_numpy(column).to(device) for column in columns),
        points.day,
        *(torch.from_numpy(column).to(device) for column in pairs),
    )


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


def decisions_in(batch: Batch, decisions: Decisions) -> tuple[np.ndarray, Tensor]:
    """Return which decisions were taken for the histories of a batch, and the history's place in it, int64 each."""
    place = np.full(int(decisions.history.max(initial=-1)) + 1, -1)
    inside = batch.rows[batch.rows < len(place)]
    place[inside] = np.flatnonzero(batch.rows < len(place))
    chosen = np.flatnonzero(place[decisions.history] >= 0)
    return chosen, torch.from_numpy(place[decisions.history[chosen]]).to(batch.items.device)
