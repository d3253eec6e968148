"""Histories and decisions, padded into tensors. Refuses to know losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sanderling_trainer.data.examples import Decisions, History


@dataclass(frozen=True)
class Batch:
    """b histories of at most s events, padded with -1; `rows` int64 [b] are their places in the list."""

    items: Tensor
    kinds: Tensor
    liked: Tensor
    contexts: Tensor
    fresh: Tensor
    rows: np.ndarray


def batches(
    histories: Sequence[History], events: int, device: torch.device, rng: np.random.Generator | None = None
) -> Iterator[Batch]:
    """Yield batches of about `events` events, histories of like length together; shuffled when `rng` is given."""
    order = sorted((row for row, history in enumerate(histories) if len(history)), key=lambda row: len(histories[row]))
    groups: list[list[int]] = [[]]
    for row in order:
        if groups[-1] and (len(groups[-1]) + 1) * len(histories[row]) > events:
            groups.append([])
        groups[-1].append(row)
    chosen = rng.permutation(len(groups)) if rng is not None else range(len(groups))
    return (_batch(histories, groups[at], device) for at in chosen if groups[at])


def _batch(histories: Sequence[History], rows: list[int], device: torch.device) -> Batch:
    longest = max(len(histories[row]) for row in rows)

    def padded(name: str, fill: int) -> Tensor:
        out = np.full((len(rows), longest), fill, np.int64)
        for at, row in enumerate(rows):
            out[at, : len(histories[row])] = getattr(histories[row], name)
        return torch.from_numpy(out).to(device)

    return Batch(
        padded("items", -1),
        padded("kinds", 0),
        padded("liked", 0).bool(),
        padded("contexts", -1),
        padded("fresh", 0).bool(),
        np.array(rows),
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
