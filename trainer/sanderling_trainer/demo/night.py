"""What one simulated night came to, beside what the truth would give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.demo.device_process import Visit, read_journal
from sanderling_trainer.demo.people import World
from sanderling_trainer.evaluation.intervals import ratio, ratio_difference

Floats = NDArray[np.float64]


@dataclass
class Tally:
    """Sums over one night's visits of each person, float64 [people]."""

    people: int
    releases: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        zeros = np.zeros((7, self.people))
        self.slates, self.clicks, self.expected, self.best = zeros[:4]
        self.shown, self.newcomers, self.best_newcomers = zeros[4:]

    def summary(self, rng: np.random.Generator) -> dict[str, Any]:
        """Return clicks a slate, the share of the best possible, and the newcomers' shares.

        Intervals are over people; the result is ready for JSON.
        """
        return {
            "releases": sorted(self.releases),
            "slates": int(self.slates.sum()),
            "clicks": ratio(self.clicks, self.slates, rng).as_dict(),
            "share": ratio(self.expected, self.best, rng).as_dict(),
            "newcomers": float(self.newcomers.sum() / self.shown.sum()),
            "best_newcomers": float(self.best_newcomers.sum() / self.shown.sum()),
        }


def tally(world: World, night: int, journals: Iterable[Path]) -> Tally:
    """Return what the journals of one arm's night tell."""
    sums = Tally(len(world))
    attraction = world.attraction(night).astype(np.float64)
    examination = world.population.examination
    first_newcomer = world.population.born(0)
    had = [list(told) for told in world.told]
    for visit in _in_order(journals):
        person = visit.person
        shown = attraction[person, visit.shown]
        best = _best(attraction[person], had[person], len(visit.shown))

        sums.releases.add(visit.release)
        sums.slates[person] += 1
        sums.clicks[person] += len(visit.clicked)
        sums.expected[person] += shown @ examination[: len(shown)]
        sums.best[person] += attraction[person, best] @ examination[: len(best)]
        sums.shown[person] += len(visit.shown)
        sums.newcomers[person] += sum(item >= first_newcomer for item in visit.shown)
        sums.best_newcomers[person] += (best >= first_newcomer).sum()
        had[person] += visit.had()
    return sums


def compare(ours: Tally, never: Tally, rng: np.random.Generator) -> dict[str, Any]:
    """Return the night of both arms and the paired difference of clicks a slate, for JSON."""
    difference = ratio_difference((ours.clicks, ours.slates), (never.clicks, never.slates), rng)
    return {
        "ours": ours.summary(rng),
        "never": never.summary(rng),
        "difference": difference.as_dict(),
    }


def latency(journals: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Return the p50 and p99 of `recommend` in µs and of `reward_all` in ms, over all visits."""
    visits = [visit for path in journals for visit in read_journal(path)]
    columns = {
        "recommend_us": [visit.recommend_us for visit in visits],
        "reward_ms": [visit.reward_ms for visit in visits],
    }
    return {
        name: {"p50": float(np.quantile(values, 0.5)), "p99": float(np.quantile(values, 0.99))}
        for name, values in columns.items()
    }


def _in_order(journals: Iterable[Path]) -> list[Visit]:
    """Return the visits of each person in order.

    A killed process may have repeated its last visit: the later entry counts.
    """
    by_place = {
        (visit.person, visit.visit): visit for path in journals for visit in read_journal(path)
    }
    return [by_place[place] for place in sorted(by_place)]


def _best(attraction: Floats, had: Sequence[int], slots: int) -> NDArray[np.int64]:
    """Return the best slate of so many items, best first."""
    left = attraction.copy()
    left[had] = -1.0
    return np.argsort(-left, kind="stable")[:slots]
