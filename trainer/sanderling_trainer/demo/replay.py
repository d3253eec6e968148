"""The honest line of the demo: the first release beside baselines on real users' later histories.

No click in it is simulated, and what users would have done with other slates is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling import Engine
from sanderling_trainer.demo.people import World
from sanderling_trainer.evaluation.baselines import Popularity
from sanderling_trainer.evaluation.intervals import ratio
from sanderling_trainer.evaluation.trajectory_replay import Trajectory, replay
from sanderling_trainer.policy.model.config import Config

DEFINITION = (
    "Real users who are not simulated, after the time up to which release 1 has learned. At each"
    " step of a user's later history the policy shows 10 items that the user has not had; an item"
    " that the user liked at that step or later counts as clicked."
)


@dataclass(frozen=True)
class Arm:
    """Clicks and shown items of each user, float64 [u], in the same order in every arm."""

    name: str
    clicks: NDArray[np.float64]
    shown: NDArray[np.float64]


def replay_release(world: World, bundle: Path, config: Config) -> dict[str, Any]:
    """Return the click rates of random items, popularity and a bundle, ready for JSON."""
    rng = np.random.default_rng(config.seed + 3)
    arms = [*_baselines(world, config, rng), _of_bundle("release 1", world, bundle, config.slate)]
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
    return {"definition": DEFINITION, "users": len(world.cut.users), "arms": rows}


def _baselines(world: World, config: Config, rng: np.random.Generator) -> list[Arm]:
    """Return the arms `random` and `popularity`, with the devices' own slates and exploration."""
    items = len(world.catalog)
    past = world.cut.past.item
    popularity = Popularity().fit([past], items).scores([past])
    arms = []
    for name in ("random", "popularity"):
        results = []
        for user in world.cut.users:
            scores = popularity
            if name == "random":
                scores = rng.random((len(user.later), items), np.float32)
            result = replay(user, scores, config.slate, config.pool, config.epsilon, rng)
            results.append((float(result.clicks.sum()), float(result.shown)))
        arms.append(_arm(name, results))
    return arms


def _of_bundle(name: str, world: World, bundle: Path, slots: int) -> Arm:
    """Return what an engine shows that stores nothing."""
    with Engine.open(bundle) as engine:
        results = [
            _on_device(engine, f"user-{user.user}", user, world, slots) for user in world.cut.users
        ]
    return _arm(name, results)


def _on_device(
    engine: Engine, name: str, user: Trajectory, world: World, slots: int
) -> tuple[float, float]:
    ids = world.catalog.ids
    kinds = world.log.kinds
    for item, kind in zip(user.before, user.before_kinds, strict=True):
        engine.observe(name, ids[item], kinds[kind])
    clicks = shown = 0
    for step, seen, clickable in user.steps():
        slate = engine.recommend(name, slots, exclude=[ids[item] for item in seen])
        wanted = {ids[item] for item in clickable}
        clicks += sum(item.id in wanted for item in slate)
        shown += len(slate)
        engine.observe(name, ids[user.later[step]], kinds[user.kinds[step]])
    return float(clicks), float(shown)


def _arm(name: str, results: Sequence[tuple[float, float]]) -> Arm:
    by_user = np.array(results)
    return Arm(name, by_user[:, 0], by_user[:, 1])
