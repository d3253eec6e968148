"""The demo's arms: what devices wrote into their journals, and what baselines would have shown on the same ways.

Refuses to know processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.tables import Catalogue, Interactions
from sanderling_trainer.demo.device_process import read_journal
from sanderling_trainer.evaluation.intervals import ratio, ratio_difference
from sanderling_trainer.evaluation.trajectory_replay import Trajectory, replay
from sanderling_trainer.policy.model.config import Config


@dataclass(frozen=True)
class Arm:
    """Clicks and shown items of each user, float64 [u], in one order for all arms."""

    name: str
    clicks: NDArray[np.float64]
    shown: NDArray[np.float64]


def plain(
    ways: Sequence[Trajectory], catalogue: Catalogue, log: Interactions
) -> list[dict[str, Any]]:
    """Return journeys as a device reads them: user, before [item, kind], later [item, kind, liked, context]."""

    def context(code: int) -> str | None:
        return log.contexts[code] if code >= 0 else None

    return [
        {
            "user": log.users[way.user],
            "before": [
                [catalogue.ids[item], log.kinds[kind]]
                for item, kind in zip(way.before, way.before_kinds, strict=True)
            ],
            "later": [
                [catalogue.ids[item], log.kinds[kind], bool(liked), context(code)]
                for item, kind, liked, code in zip(
                    way.later, way.kinds, way.liked, way.contexts, strict=True
                )
            ],
        }
        for way in ways
    ]


def baselines(
    ways: Sequence[Trajectory], log: Interactions, known: int, items: int, config: Config
) -> list[Arm]:
    """Return the arms random and popularity (likes up to `known`, seconds), with the devices' own exploration."""
    past = log.select((log.time <= known) & (log.reward > 0))
    rng = np.random.default_rng(config.seed + 3)
    popular = np.bincount(past.item, minlength=items).astype(np.float32)[None]
    arms = []
    for name in ("random", "popularity"):
        clicks, shown = [], []
        for way in ways:
            scores = (
                popular if name == "popularity" else rng.random((len(way.later), items), np.float32)
            )
            found = replay(way, scores, config.slate, config.pool, config.epsilon, rng)
            clicks.append(float(found.clicks.sum()))
            shown.append(float(found.shown))
        arms.append(Arm(name, np.array(clicks), np.array(shown)))
    return arms


def device_arm(name: str, journals: Sequence[Path]) -> Arm:
    """Return what devices did; way i of all was replayed by device i modulo their number."""
    sums: dict[int, list[float]] = {}
    for device, path in enumerate(journals):
        for journey, _, _, clicks, shown, *_ in {
            (e[0], e[1]): e for e in read_journal(path)
        }.values():
            user = sums.setdefault(journey * len(journals) + device, [0.0, 0.0])
            user[0] += clicks
            user[1] += shown
    counted = np.array([sums[user] for user in sorted(sums)])
    return Arm(name, counted[:, 0], counted[:, 1])


def compare(arms: Sequence[Arm], seed: int) -> dict[str, Any]:
    """Return every arm's click rate with its interval, and the paired difference of the last two arms."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "name": arm.name,
            "clicks": int(arm.clicks.sum()),
            "shown": int(arm.shown.sum()),
            **{
                ("ctr" if key == "value" else key): x
                for key, x in ratio(arm.clicks, arm.shown, rng).plain().items()
            },
        }
        for arm in arms
    ]
    before, after = arms[-2:]
    difference = ratio_difference((after.clicks, after.shown), (before.clicks, before.shown), rng)
    return {
        "arms": rows,
        "difference": {"name": f"{after.name} - {before.name}", **difference.plain()},
    }


def latency(journals: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Return the p50 and p99 of `recommend` in µs and of `reward_all` in ms, over all steps."""
    steps = np.array([entry[5:] for path in journals for entry in read_journal(path)])
    return {
        name: {"p50": float(np.quantile(column, 0.5)), "p99": float(np.quantile(column, 0.99))}
        for name, column in zip(("recommend_us", "reward_ms"), steps.T, strict=True)
    }
