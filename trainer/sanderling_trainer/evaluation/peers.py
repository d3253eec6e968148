"""Baselines tuned over inner windows with small grids, beside which a policy has to stand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.evaluation.baselines import (
    EASE,
    IALS,
    ItemKNN,
    Popularity,
    RecentPopularity,
    blend,
)
from sanderling_trainer.evaluation.inner_windows import (
    Rows,
    Scores,
    Window,
    histories_by_user,
)

EASE_ITEMS = 6_000
"""EASE solves a system of n x n: at this size in about 10 s on one core."""

RECENT = "recent popularity"
BLEND = "EASE + recent popularity"

GRIDS: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "popularity": {},
    RECENT: {"days": (7, 14, 28)},
    "ItemKNN": {"neighbours": (100, 100_000), "shrink": (10.0, 50.0)},
    "iALS": {"factors": (32,), "alpha": (1.0,), "regularization": (0.0003, 0.003)},
    BLEND: {"regularization": (200.0, 500.0), "days": (7, 14), "weight": (0.0, 0.5, 1.0)},
}


@dataclass(frozen=True)
class TunedPeer:
    """A baseline with the settings that were best over all windows."""

    name: str
    settings: dict[str, Any]

    ndcg: list[NDArray[np.float64]]
    """nDCG@10 of each window's users."""

    @property
    def mean(self) -> float:
        """The mean over windows of the mean over users."""
        return float(np.mean([values.mean() for values in self.ndcg]))


def tune_peers(windows: Sequence[Window], items: int) -> list[TunedPeer]:
    """Return each baseline at its best, the best first; `items` is the size of the catalog."""
    tried: dict[tuple[str, tuple], list[NDArray[np.float64]]] = {}
    for window in windows:
        for name, settings, scores in _candidates(window, items):
            key = (name, tuple(settings.items()))
            tried.setdefault(key, []).append(window.ndcg(scores))

    best: dict[str, TunedPeer] = {}
    for (name, pairs), ndcg in tried.items():
        peer = TunedPeer(name, dict(pairs), ndcg)
        if name not in best or peer.mean > best[name].mean:
            best[name] = peer
    return sorted(best.values(), key=lambda peer: -peer.mean)


def grid(name: str) -> list[dict[str, Any]]:
    """Return every combination of a baseline's settings."""
    values = GRIDS[name]
    return [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]


def _candidates(window: Window, items: int) -> Iterator[tuple[str, dict[str, Any], Scores]]:
    """Yield name, settings and scores [u, n] of every baseline that suits the window."""
    fitted = FittedPeers.of(window, items)
    asked = window.liked_before()
    for name in GRIDS:
        if name != BLEND or items <= EASE_ITEMS:
            for settings in grid(name):
                yield name, settings, fitted.scores(name, settings, asked)


class FittedPeers:
    """The baselines fitted to one log's likes; each solution is computed once."""

    def __init__(self, histories: Sequence[Rows], item: Rows, time: Rows, items: int) -> None:
        """`item` and `time` are all likes in order of time."""
        self._histories = histories
        self._item = item
        self._time = time
        self._items = items
        self._solved: dict[tuple, Any] = {}

    @staticmethod
    def of(window: Window, items: int) -> FittedPeers:
        """Return the peers of a window's past."""
        likes = window.past.select(window.past.reward > 0)
        return FittedPeers(histories_by_user(window.past), likes.item, likes.time, items)

    def scores(self, name: str, settings: Mapping[str, Any], asked: Sequence[Rows]) -> Scores:
        """Return float32 [u, n] of a baseline for users with these liked rows, now."""
        if name == "popularity":
            return Popularity().fit(self._histories, self._items).scores(asked)
        if name == RECENT:
            return np.tile(self._recent(settings["days"]), (len(asked), 1))
        if name == BLEND:
            # Weights and windows of popularity share the scores, which take longer. They are kept
            # with `asked` itself, so that no other list can have its id.
            _, personal = self._once(
                ("scores", settings["regularization"], id(asked)),
                lambda: (asked, self._ease(settings["regularization"]).scores(asked)),
            )
            return blend(personal, self._recent(settings["days"]), settings["weight"])
        model = self._once(
            (name, *settings.items()),
            lambda: (ItemKNN if name == "ItemKNN" else IALS)(**settings).fit(
                self._histories, self._items
            ),
        )
        return model.scores(asked)

    def _recent(self, days: float) -> NDArray[np.float32]:
        after = int(self._time.max(initial=0)) + 1
        return RecentPopularity(days).fit(self._item, self._time, self._items).counts(after)

    def _ease(self, regularization: float) -> EASE:
        return self._once(
            ("EASE", regularization),
            lambda: EASE(regularization).fit(self._histories, self._items),
        )

    def _once(self, key: tuple, make: Any) -> Any:
        if key not in self._solved:
            self._solved[key] = make()
        return self._solved[key]
