"""Chooses a policy's settings by the log itself, on several inner windows.

Statistics of the log say which candidates can suit it. They are screened on the earliest window
with a part of the users; the best is fitted on the others whole, which also gives the number of
epochs. Baselines tuned over the same windows stand beside it. All fits together take at most three
times as many steps as the fit that follows.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.histories import kind_codes
from sanderling_trainer.data.popularity import DAY
from sanderling_trainer.data.tables import Interactions
from sanderling_trainer.evaluation.inner_windows import Window, windows
from sanderling_trainer.evaluation.peers import TunedPeer, tune_peers
from sanderling_trainer.policy.fit import (
    FitOptions,
    TextVectors,
    TrainingPart,
    fit_policy,
    initial_network,
)
from sanderling_trainer.policy.log_statistics import LogStatistics
from sanderling_trainer.policy.model import linear_init
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.rollout import scores_at_cut
from sanderling_trainer.policy.train_options import SETTINGS

MAX_EVENTS = 1_000_000
"""A larger log is chosen by a sample of its users."""

RIDGES = (1.0, 5.0, 25.0, 100.0, 400.0, 1600.0)
MEMORIES = (3.0, 30.0, 300.0)  # events
GAINS = (0.5, 2.0, 8.0, 32.0, 128.0)
START_MARGIN = 0.02  # of the linear start's nDCG, which training may lose
SCREENING = 1.0  # of one fit, all candidates together

VISITS = {"dropout": 0.4, "learning_rate": 1.5e-3, "epochs": 6}
SINGLE = {"visit_hours": 0.0, "horizon_days": 0.0}
SAMPLED = {"dropout": 0.3, "learning_rate": 2e-3, "epochs": 6, "batch_events": 1024}
"""Of single events in a catalog whose softmax is sampled: a step costs as much as its batch, and
the many items that have few events are soon learned by heart."""

POLICY = "Sanderling"

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """A way to train the policy."""

    name: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """What one model reached on the inner windows."""

    name: str
    settings: dict[str, Any]

    ndcg: dict[str, Values]
    """nDCG@10 of the users of each window, by its name."""

    stage: str

    @property
    def mean(self) -> float:
        """The mean over windows of the mean over users."""
        return float(np.mean([values.mean() for values in self.ndcg.values()]))

    def as_dict(self) -> dict[str, Any]:
        """Return the row with each window's mean and number of users, ready for JSON."""
        reached = {
            name: {"ndcg@10": float(values.mean()), "users": len(values)}
            for name, values in self.ndcg.items()
        }
        return {
            "model": self.name,
            "settings": self.settings,
            "stage": self.stage,
            "windows": reached,
            "mean": self.mean,
        }


@dataclass(frozen=True)
class Choice:
    """The configuration to fit with, and why."""

    config: Config
    repeats: bool
    statistics: LogStatistics

    rows: list[Row] = field(default_factory=list)
    """Everything that was tried; empty where there was no window to try it on."""

    peers: list[TunedPeer] = field(default_factory=list)

    steps: float = 0.0
    """What the fits on windows cost, in events times epochs."""

    @property
    def loses(self) -> bool:
        """Whether a baseline was better than the policy on the windows both were measured on."""
        compared = [row for row in self.rows if row.stage == "compared"]
        return len(compared) > 1 and compared[0].name != POLICY

    def as_dict(self) -> dict[str, Any]:
        """Return the choice, ready for JSON."""
        return {
            "log": self.statistics.as_dict(),
            "repeats": self.repeats,
            "settings": {name: getattr(self.config, name) for name in SETTINGS},
            "loses": self.loses,
            "tried": [row.as_dict() for row in self.rows],
        }


def choose(
    log: Interactions, items: int, config: Config, free: Collection[str], vectors: TextVectors
) -> Choice:
    """Return the choice for a log in order of time; of `SETTINGS` only those of `free` change.

    Where nothing is free nothing is fitted.

    items: n, the size of the catalog.
    """
    rng = np.random.default_rng(config.seed)
    statistics = LogStatistics.of(log)
    if not free:
        return Choice(config, statistics.repeats, statistics)
    tried = _sample(log, MAX_EVENTS / len(log), rng)
    search = _Search(
        config=config,
        free=frozenset(free),
        statistics=statistics,
        windows=windows(tried, statistics.repeats, rng),
        items=items,
        vectors=vectors,
        rng=rng,
        events=len(tried),
    )
    return search.run()


def candidates(
    statistics: LogStatistics,
    config: Config,
    free: Collection[str],
    *,
    is_sampled: bool = False,
    has_texts: bool = True,
) -> list[Candidate]:
    """Return the ways to train that can suit a log, the likeliest first.

    is_sampled: whether the catalog is too large for the full softmax.
    has_texts: whether the items' texts tell anything.
    """
    hours = statistics.visit_hours if "visit_hours" in free else config.visit_hours
    fixed_single = "visit_hours" not in free and config.visit_hours == 0
    fixed_visits = "visit_hours" not in free and config.visit_hours > 0

    found = []
    if fixed_visits or (statistics.may_visit and not fixed_single):
        horizons = (14.0, 30.0) if "horizon_days" in free else (config.horizon_days,)
        found += [
            Candidate(
                f"visits of {hours:g} h, {days:g} days",
                {"visit_hours": hours, "horizon_days": days, **VISITS},
            )
            for days in horizons
        ]
    if not found or (statistics.may_be_single and not fixed_visits):
        found += _by_single_events(is_sampled, has_texts)
    freed = [
        replace(one, changes={name: value for name, value in one.changes.items() if name in free})
        for one in found
    ]
    return [
        one for at, one in enumerate(freed) if one.changes not in [x.changes for x in freed[:at]]
    ]


def _by_single_events(is_sampled: bool, has_texts: bool) -> list[Candidate]:
    both, by_ids = dict(SINGLE), SINGLE | {"id_dropout": 0.0}
    if is_sampled:
        both, by_ids = both | SAMPLED, by_ids | SAMPLED
    else:
        both |= {"dropout": 0.2, "learning_rate": 2e-3, "epochs": 10}
        by_ids |= {"dropout": 0.2, "learning_rate": 4e-3, "epochs": 10}
    found = [Candidate("single events", both), Candidate("single events, ids alone", by_ids)]
    # To hide residuals teaches nothing where texts say nothing.
    return found[1:] if is_sampled and not has_texts else found


@dataclass
class _Search:
    """One search; `run` returns its choice."""

    config: Config
    free: frozenset[str]
    statistics: LogStatistics
    windows: list[Window]
    items: int
    vectors: TextVectors
    rng: np.random.Generator
    events: int

    steps: float = 0.0
    rows: list[Row] = field(default_factory=list)

    def run(self) -> Choice:
        if not self.windows:
            first = self._candidates(self.config)[0]
            config = replace(self.config, **first.changes)
            return Choice(config, self.statistics.repeats, self.statistics)

        config = self._with_linear_start()
        found = self._candidates(config)
        compared = self.windows
        best = found[0]
        if len(found) > 1 and len(self.windows) > 1:
            best = self._screen(found, config)
            compared = self.windows[1:]

        config = self._epochs(replace(config, **best.changes), compared)
        peers = tune_peers(compared, self.items)
        for peer in peers:
            self._add_row(peer.name, peer.settings, compared, peer.ndcg, "compared")
        self.rows.sort(key=lambda row: (row.stage == "screened", -row.mean))
        return Choice(
            config, self.statistics.repeats, self.statistics, self.rows, peers, self.steps
        )

    def _candidates(self, config: Config) -> list[Candidate]:
        texts = self.vectors.items
        return candidates(
            self.statistics,
            config,
            self.free,
            is_sampled=self.items > config.full_softmax,
            has_texts=bool((texts != texts[:1]).any()),
        )

    def _with_linear_start(self) -> Config:
        """Return the configuration with the linear start that ranks best, which costs no fit."""
        config = self.config
        if not config.linear_start:
            return config
        free_values = [
            values if name in self.free else (getattr(config, name),)
            for name, values in (("ridge", RIDGES), ("memory", MEMORIES))
        ]
        pairs = list(itertools.product(*free_values))
        reached: dict[tuple[float, ...], list[Values]] = {pair: [] for pair in pairs}
        for window in self.windows:
            histories = self._part(window.past).histories
            sigma, v = linear_init.singular_vectors(histories, self.items, config.dim)
            for memory in free_values[1]:
                sums = np.stack([_decayed_sum(v, user.before, memory) for user in window.users])
                for ridge in free_values[0]:
                    shrunk = sums * (sigma**2 / (sigma**2 + np.float32(ridge)))
                    scores = (shrunk @ v.T).astype(np.float32)
                    reached[ridge, memory].append(window.ndcg(scores))
        best = max(pairs, key=lambda pair: _mean(reached[pair]))
        chosen = {"ridge": best[0], "memory": best[1]}
        self._add_row("linear start alone", chosen, self.windows, reached[best], "start")
        return self._with_gain(replace(config, **chosen))

    def _with_gain(self, config: Config) -> Config:
        """Return the configuration with the weight of the linear start beside popularity that
        ranks best. Scores are linear in it, so that two networks give those of all weights.
        """
        if "gain" not in self.free:
            return config
        reached: dict[float, list[Values]] = {gain: [] for gain in GAINS}
        for window in self.windows:
            part = self._part(window.past)
            one, two = (self._start_scores(part, replace(config, gain=g), window) for g in (1, 2))
            for gain in GAINS:
                reached[gain].append(window.ndcg(one + np.float32(gain - 1) * (two - one)))
        best = max(GAINS, key=lambda gain: _mean(reached[gain]))
        row = "linear start with popularity"
        self._add_row(row, {"gain": best}, self.windows, reached[best], "start")
        return replace(config, gain=best)

    def _start_scores(
        self, part: TrainingPart, config: Config, window: Window
    ) -> NDArray[np.float32]:
        network = initial_network(part, config, self.vectors).eval()
        network.set_popularity_day(part.popularity, part.end // DAY)
        return scores_at_cut(network, window.users, kind_codes(part.log.kinds, part.kinds))

    def _screen(self, found: Sequence[Candidate], config: Config) -> Candidate:
        """Return the candidate that is best at its best epoch on the earliest window."""
        window = self.windows[0]
        configs = [replace(config, **one.changes) for one in found]
        # All candidates together cost about one fit of the whole log.
        share = min(1.0, SCREENING / (len(found) * len(window.past) / self.events))
        part = self._part(_sample(window.past, share, self.rng))
        curves = [self._curve(part, each, window) for each in configs]
        for one, curve in zip(found, curves, strict=True):
            top = max(curve, key=lambda values: values.mean())
            self._add_row(one.name, dict(one.changes), [window], [top], "screened")
        reached = [max(values.mean() for values in curve) for curve in curves]
        return found[int(np.argmax(reached))]

    def _epochs(self, config: Config, compared: Sequence[Window]) -> Config:
        """Fit on whole windows; return the configuration with the epochs that were best."""
        curves = [self._curve(self._part(window.past), config, window) for window in compared]
        means = np.mean([[values.mean() for values in curve] for curve in curves], axis=0)
        best = best_epoch(means)
        if "stop_after" in self.free:
            config = replace(config, stop_after=best)
        else:
            best = len(means) - 1
        settings = {name: getattr(config, name) for name in SETTINGS}
        self._add_row(POLICY, settings, compared, [curve[best] for curve in curves], "compared")
        return config

    def _curve(self, part: TrainingPart, config: Config, window: Window) -> list[Values]:
        """Fit; return nDCG@10 of the window's users before the first epoch and after each."""
        curve: list[Values] = []
        codes = kind_codes(part.log.kinds, part.kinds)

        def measure(network: PolicyNetwork, epoch: int) -> None:
            curve.append(window.ndcg(scores_at_cut(network, window.users, codes)))

        options = FitOptions(after_epoch=measure, label="fit to choose settings")
        fit = fit_policy(part, config, self.vectors, options)
        self.steps += len(fit.curves.loss) * len(part.log)
        return curve

    def _add_row(
        self,
        name: str,
        settings: dict[str, Any],
        measured: Sequence[Window],
        values: Sequence[Values],
        stage: str,
    ) -> None:
        by_window = {window.name: each for window, each in zip(measured, values, strict=True)}
        self.rows.append(Row(name, settings, by_window, stage))

    def _part(self, log: Interactions) -> TrainingPart:
        return TrainingPart(log, self.items, self.statistics.repeats)


def _sample(log: Interactions, share: float, rng: np.random.Generator) -> Interactions:
    """Return the events of a share of the users, drawn at random; all where it is 1 or more."""
    if share >= 1.0:
        return log
    users = np.unique(log.user)
    kept = rng.choice(users, max(1, int(share * len(users))), replace=False)
    return log.select(np.isin(log.user, kept))


def _decayed_sum(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], memory: float
) -> NDArray[np.float32]:
    """Return the sum of a history's vectors, an event at age a weighing exp(-a / memory)."""
    ages = np.arange(len(rows))[::-1].astype(np.float32)
    return np.exp(-ages / np.float32(memory)) @ vectors[rows]


def best_epoch(means: Values) -> int:
    """Return the epoch with the highest mean nDCG.

    The start, epoch 0, is taken only where it is clearly better: it cannot rank by texts.
    """
    trained = 1 + int(np.argmax(means[1:])) if len(means) > 1 else 0
    return trained if means[trained] >= (1.0 - START_MARGIN) * means[0] else 0


def _mean(values: Sequence[Values]) -> float:
    return float(np.mean([each.mean() for each in values]))
