"""The settings that each model is tuned over, at most `BUDGET` trials each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.ranking import baselines
from bench.ranking.protocols import Benchmark, Model
from sanderling_trainer.evaluation.baselines import EASE_MAX_ITEMS

BUDGET = 12


@dataclass(frozen=True)
class Candidate:
    """How to build a model, the settings to try, whether seeds change it, and whether it
    can take part at all.

    `like` names the model whose settings, once chosen, are taken instead.
    """

    build: Callable[..., Model]
    settings: Sequence[Mapping[str, Any]] = ({},)
    seeded: bool = False
    suits: Callable[[Benchmark], bool] = lambda _: True
    like: str | None = None


def grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    """Return every combination of the values."""
    return [
        dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())
    ]


def _clocked(benchmark: Benchmark) -> bool:
    return benchmark.clocked


def _told(benchmark: Benchmark) -> bool:
    return any(benchmark.report.queries.texts)


def _small(benchmark: Benchmark) -> bool:
    return len(benchmark.report.train.texts) <= EASE_MAX_ITEMS


BASELINES: dict[str, Candidate] = {
    "random": Candidate(baselines.Random, seeded=True),
    "popular": Candidate(baselines.Popular),
    "recent popular": Candidate(
        baselines.RecentPopular,
        grid(days=[1, 2, 3, 5, 7, 10, 14, 21, 28, 42, 60, 90]),
        suits=_clocked,
    ),
    "TF-IDF content": Candidate(
        baselines.Content,
        grid(terms=["words", "words and pairs", "trigrams"], last=[10, 30, 100, 100_000]),
        suits=_told,
    ),
    "ItemKNN": Candidate(
        baselines.ItemKNN, grid(neighbours=[20, 50, 100, 200], shrink=[0.0, 10.0, 50.0])
    ),
    "EASE": Candidate(
        baselines.EASE,
        grid(regularization=[20, 50, 100, 200, 350, 500, 700, 1000, 1500, 2500, 4000, 8000]),
        suits=_small,
    ),
    "iALS": Candidate(
        baselines.IALS,
        grid(factors=[64], alpha=[0.3, 1.0, 3.0], regularization=[0.0003, 0.001, 0.003, 0.01]),
        seeded=True,
    ),
    "EASE + recent popular": Candidate(
        baselines.Blend,
        grid(regularization=[200, 500], days=[7, 14], weight=[0.5, 1.0, 1.5]),
        suits=lambda benchmark: _small(benchmark) and _clocked(benchmark),
    ),
}
