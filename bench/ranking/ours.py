"""Sanderling as one of the compared models: the trainer's own warm start, in float32."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from bench.ranking.candidates import Candidate, grid
from bench.ranking.data import Log
from bench.ranking.protocols import Benchmark, Queries
from sanderling_trainer.data.histories import History
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.policy.model import linear_init
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.language_model import LanguageModel
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.newcomers import calibrate_newcomers
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.warm_start import warm_start

CHUNK = 64


class Sanderling:
    """The policy after its warm start, in float32. `repeats` trains it to recommend again
    what a user has had.
    """

    name = "Sanderling"
    kind = 0
    """Code of the events' kind."""

    def __init__(self, repeats: bool = False, **settings: float) -> None:
        self.repeats, self.settings = repeats, settings

    def fit(self, train: Log, seed: int) -> Sanderling:
        """Train on a log."""
        self.config = Config(seed=seed, **self.settings)  # type: ignore[arg-type]
        self.text = text_vectors(train.texts)
        torch.manual_seed(seed)
        network = PolicyNetwork(
            self.config, torch.from_numpy(self.text), torch.empty(0, self.text.shape[1]), 1
        )
        histories = [_history(rows, times) for rows, times in _users(train)]
        if self.config.linear_start:
            factors = linear_init.ridge_factors(
                histories, len(train.texts), self.config.dim, self.config.ridge
            )
            linear_init.initialize(network, factors)
        self.popularity = PopularityHistory.of(train.user, train.item, train.time, len(train.texts))
        context = TrainingContext(network, histories, self.config, self.repeats, self.popularity)
        warm_start(context)
        calibrate_newcomers(context)
        self.network = network
        return self

    def set_time(self, moment: int) -> None:
        """Set the popularity features to those of a moment in seconds, as a release would."""
        self.network.set_popularity_day(self.popularity, moment // DAY)

    @torch.no_grad()
    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """Return float32 [u, n], of items new since the training too: they have a text and the
        bias of a new item.
        """
        self.set_time(int(queries.now.max()))
        items = self.network.items()
        later = queries.texts[len(items) :]
        new = self.network.newcomers(torch.from_numpy(text_vectors(later))) if later else items[:0]
        popularity = self.network.new_item_popularity @ self.network.popularity_weights
        new_item = self.network.new_item_bias + popularity
        biases = torch.cat([self.network.biases(), new_item.expand(len(new))])
        users = self.network.users(self._states(items, queries))
        return (users @ torch.cat([items, new]).T + biases).numpy()

    def _states(self, items: torch.Tensor, queries: Queries) -> torch.Tensor:
        states = []
        for start in range(0, len(queries), CHUNK):
            rows = queries.items[start : start + CHUNK]
            padded = np.full((len(rows), max(1, *map(len, rows))), -1, np.int64)
            for at, each in enumerate(rows):
                padded[at, : len(each)] = each
            sequence = torch.from_numpy(padded)
            last = torch.tensor([len(each) for each in rows])
            states.append(
                self.network.states(items, sequence, torch.full_like(sequence, self.kind))[
                    range(len(rows)), last
                ]
            )
        return torch.cat(states)


def text_vectors(texts: list[str]) -> NDArray[np.float32]:
    """Return the vectors of texts, float32 [n, t]; each text is encoded once a process."""
    if not any(texts):
        return np.zeros((len(texts), 1), np.float32)
    new = [text for text in dict.fromkeys(texts) if text not in _KNOWN]
    if new:
        _KNOWN.update(zip(new, LanguageModel().encode(new), strict=True))
    return np.stack([_KNOWN[text] for text in texts])


_KNOWN: dict[str, NDArray[np.float32]] = {}


def _users(log: Log) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    order = np.argsort(log.user, kind="stable")
    ends = np.flatnonzero(np.diff(log.user[order])) + 1
    return [(log.item[rows], log.time[rows]) for rows in np.split(order, ends)]


def _history(rows: NDArray[np.int64], times: NDArray[np.int64]) -> History:
    n = len(rows)
    return History(
        rows,
        np.zeros(n, np.int64),
        np.ones(n, np.bool_),
        np.full(n, -1),
        np.zeros(n, np.bool_),
        times,
    )


def visited(benchmark: Benchmark) -> bool:
    """Whether users come in visits, so that a slate is shown before one."""
    return benchmark.name.startswith("online_retail")


def _in_turn(benchmark: Benchmark) -> bool:
    return not visited(benchmark)


MODELS = {
    "Sanderling": Candidate(
        Sanderling,
        grid(
            dim=[64, 128],
            horizon_days=[14.0, 30.0],
            epochs=[4, 6],
            visit_hours=[6.0],
            dropout=[0.4],
            learning_rate=[0.0015],
        ),
        seeded=True,
        suits=visited,
    ),
    "Sanderling, random start": Candidate(
        partial(Sanderling, linear_start=False),
        grid(
            epochs=[4, 6, 10],
            horizon_days=[14.0, 30.0],
            visit_hours=[6.0],
            dropout=[0.4],
            learning_rate=[0.0015],
        ),
        seeded=True,
        suits=visited,
    ),
    "Sanderling, repeats": Candidate(
        partial(Sanderling, repeats=True), seeded=True, suits=visited, like="Sanderling"
    ),
    "Sanderling, item by item": Candidate(
        Sanderling,
        grid(epochs=[3, 6, 12], dropout=[0.2, 0.4], learning_rate=[0.001, 0.002]),
        seeded=True,
        suits=_in_turn,
    ),
}
