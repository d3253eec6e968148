"""The arms of the replay: what devices wrote into their journals, and what baselines would show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling_trainer.data.tables import Catalog, Interactions
from sanderling_trainer.demo.device_process import read_journal
from sanderling_trainer.evaluation.baselines import Popularity
from sanderling_trainer.evaluation.intervals import ratio, ratio_difference
from sanderling_trainer.evaluation.trajectory_replay import Trajectory, replay
from sanderling_trainer.policy.model.config import Config


@dataclass(frozen=True)
class Arm:
    """Clicks and shown items of each user, float64 [u], in the same order in every arm."""

    name: str
    clicks: NDArray[np.float64]
    shown: NDArray[np.float64]


def device_trajectories(
    trajectories: Sequence[Trajectory], catalog: Catalog, log: Interactions
) -> list[dict[str, Any]]:
    """Return trajectories for a device, with ids in place of codes, ready for JSON.

    Each has `user`, `before` as [item, kind] and `later` as [item, kind, liked, context].
    """

    def context(code: int) -> str | None:
        return log.contexts[code] if code >= 0 else None

    result = []
    for trajectory in trajectories:
        before = zip(trajectory.before, trajectory.before_kinds, strict=True)
        later = zip(
            trajectory.later, trajectory.kinds, trajectory.liked, trajectory.contexts, strict=True
        )
        plain = {
            "user": log.users[trajectory.user],
            "before": [[catalog.ids[item], log.kinds[kind]] for item, kind in before],
            "later": [
                [catalog.ids[item], log.kinds[kind], bool(liked), context(code)]
                for item, kind, liked, code in later
            ],
        }
        result.append(plain)
    return result


def baseline_arms(
    trajectories: Sequence[Trajectory], log: Interactions, until: int, items: int, config: Config
) -> list[Arm]:
    """Return the arms `random` and `popularity`, with the devices' own slates and exploration.

    Popularity counts the likes up to `until` (seconds); `items` is the size of the catalog.
    """
    past = log.select((log.time <= until) & (log.reward > 0))
    rng = np.random.default_rng(config.seed + 3)
    popularity = Popularity().fit([past.item], items).scores([past.item])
    arms = []
    for name in ("random", "popularity"):
        clicks = []
        shown = []
        for trajectory in trajectories:
            if name == "popularity":
                scores = popularity
            else:
                scores = rng.random((len(trajectory.later), items), np.float32)
            result = replay(trajectory, scores, config.slate, config.pool, config.epsilon, rng)
            clicks.append(float(result.clicks.sum()))
            shown.append(float(result.shown))
        arms.append(Arm(name, np.array(clicks), np.array(shown)))
    return arms


def device_arm(name: str, journals: Sequence[Path]) -> Arm:
    """Return what the devices did; trajectory i was replayed by device i modulo their number."""
    sums: dict[int, list[float]] = {}
    for device, path in enumerate(journals):
        # A killed device may have repeated its last step: the later entry counts.
        entries = {(entry.trajectory, entry.step): entry for entry in read_journal(path)}
        for entry in entries.values():
            user = sums.setdefault(entry.trajectory * len(journals) + device, [0.0, 0.0])
            user[0] += entry.clicks
            user[1] += entry.shown
    by_user = np.array([sums[user] for user in sorted(sums)])
    return Arm(name, by_user[:, 0], by_user[:, 1])


def compare(arms: Sequence[Arm], seed: int) -> dict[str, Any]:
    """Return every arm's click rate with its interval, and the paired difference of the last two.

    The result is ready for JSON.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for arm in arms:
        rate = ratio(arm.clicks, arm.shown, rng)
        row = {
            "name": arm.name,
            "clicks": int(arm.clicks.sum()),
            "shown": int(arm.shown.sum()),
            "ctr": rate.value,
            "low": rate.low,
            "high": rate.high,
        }
        rows.append(row)
    before, after = arms[-2:]
    difference = ratio_difference((after.clicks, after.shown), (before.clicks, before.shown), rng)
    return {
        "arms": rows,
        "difference": {"name": f"{after.name} - {before.name}", **difference.as_dict()},
    }


def latency(journals: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Return the p50 and p99 of `recommend` in µs and of `reward_all` in ms, over all steps."""
    entries = [entry for path in journals for entry in read_journal(path)]
    columns = {
        "recommend_us": [entry.recommend_us for entry in entries],
        "reward_ms": [entry.reward_ms for entry in entries],
    }
    return {
        name: {"p50": float(np.quantile(values, 0.5)), "p99": float(np.quantile(values, 0.99))}
        for name, values in columns.items()
    }
