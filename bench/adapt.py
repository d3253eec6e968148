"""Like-rates of the engine with and without on-device adaptation between bundles.

Expected: the simulator of `bench bandit` (factors of Online Retail) knows each item's attraction
for each user at any time. A policy is trained on purchases at time 0 and shipped once; then each of
200 users sees 20 slates of five from the real engine, no item twice, and each slot that is read is
rewarded with ±1. The state moves by clicks in both arms. Tastes stand still, or turn by a right
angle towards another user's during the session. Reported are the true attraction of what was shown,
free of the noise of clicks, and the paired difference, with bootstrap intervals over users.

    python -m bench adapt [--data PATH] [--seeds 3]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from bench.bandits.simulator import (
    CONFIG,
    EXPOSURE_SPREAD,
    ITEMS,
    LOGGED,
    READING,
    SLOTS,
    learn_first,
    purchases,
    read,
)
from bench.ranking.data import folder
from bench.serving.random_bundle import TEXT_DIM, reseal, write_random_bundle
from sanderling import Engine
from sanderling.bundle import writer
from sanderling.bundle.manifest import Exploration, Sizes
from sanderling.ranking.quantization import quantize_rows
from sanderling_trainer.evaluation.simulators.environment import Session
from sanderling_trainer.evaluation.simulators.fitted import FittedEnvironment, fit_simulator
from sanderling_trainer.policy.checkpoint import NAMES
from sanderling_trainer.policy.model.language_model import LanguageModel
from sanderling_trainer.policy.model.network import PolicyNetwork

USERS, SLATES = 200, 20
TURNS = {"tastes stand still": 0.0, "tastes turn by a right angle": np.pi / 2 / SLATES}
ARMS = {"frozen": False, "adapted": True}


def run(arguments: list[str]) -> dict[str, Any]:
    """Print and return like-rates of both arms in both worlds, and their difference."""
    parser = argparse.ArgumentParser(prog="bench adapt")
    parser.add_argument("--data")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args(arguments)
    user, item, texts = read(folder(given.data) / "online_retail")
    text = LanguageModel("minilm").encode(texts)
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for seed in range(given.seeds):
        for name, drift in TURNS.items():
            world = fit_simulator(
                user, item, texts, READING, np.random.default_rng(seed), rate=0.05, drift=drift
            )
            for arm, rates in _played(world, text, seed).items():
                found.setdefault((name, arm), []).append(rates)
    return {"rows": [row for name in TURNS for row in _rows(name, found)]}


def _played(world: FittedEnvironment, text: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    users = rng.permutation(world.users)[: LOGGED + USERS]
    log_exposure = EXPOSURE_SPREAD * rng.standard_normal(ITEMS)
    bought = [purchases(world, one, log_exposure, rng) for one in users]
    network = learn_first(bought[:LOGGED], text, seed)
    with tempfile.TemporaryDirectory() as place:
        _write(network, Path(place) / "bundle")
        rates = {}
        for arm, adapt in ARMS.items():
            with Engine.open(Path(place) / "bundle", Path(place) / arm, adapt=adapt) as engine:
                rates[arm] = _session(
                    engine, world, users[LOGGED:], bought[LOGGED:], np.random.default_rng(seed)
                )
    return rates


def _write(network: PolicyNetwork, place: Path) -> None:
    """Write the network's policy and items as a bundle; its encoder is a toy that
    nothing here asks.
    """
    d, c = CONFIG.dim, CONFIG.state
    exploration = Exploration(epsilon=0.1, pool=50)
    write_random_bundle(
        place, ITEMS, d, state=c, kinds=("purchase", "click"), exploration=exploration
    )
    with torch.no_grad():
        tensors = {name: getattr(network, field).numpy().copy() for name, field in NAMES.items()}
        policy = {
            name: tensor
            for name, tensor in tensors.items()
            if name.startswith(("state.", "output."))
        }
        policy |= {
            "state.decay": network.decay.numpy().copy(),
            "item.bias": np.zeros(1, np.float32),
        }
        policy |= {
            name: np.zeros((d, TEXT_DIM), np.float32)
            for name in ("context.project", "item.project")
        }
        rows, scale = quantize_rows(network.items().numpy())
        biases = network.biases().numpy().astype(np.float32)
    save_file(policy, place / "policy.safetensors")
    writer.write_items(
        place, rows, scale, biases, ({"id": str(row), "title": str(row)} for row in range(ITEMS))
    )
    assert Sizes(items=ITEMS, dim=d, state=c, text=TEXT_DIM, max_tokens=64) == reseal(place).sizes


def _session(
    engine: Engine,
    world: FittedEnvironment,
    users: np.ndarray,
    bought: list[np.ndarray],
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the mean attraction of what each user was shown, float64 [users]."""
    for user, items in zip(users, bought, strict=True):
        for row in items:
            engine.observe(str(user), str(row), "purchase")
    had = [list(map(str, items)) for items in bought]
    rates = np.zeros(len(users))
    for time in range(SLATES):
        slates = [
            engine.recommend(str(user), SLOTS, exclude=had[at]) for at, user in enumerate(users)
        ]
        items = np.array([[int(item.id) for item in slate] for slate in slates])
        feedback = Session(world, users, rng, time).step(items)
        rates += (
            np.take_along_axis(world.attraction(users, time), items, axis=1).mean(axis=1) / SLATES
        )
        for at, slate in enumerate(slates):
            values = {
                slate[slot]: feedback.reward[at, slot] for slot in np.flatnonzero(feedback.seen[at])
            }
            if values:
                engine.reward_all(slate, {item: float(value) for item, value in values.items()})
            had[at] += [item.id for item in slate]
    return rates


def _rows(world: str, found: dict[tuple[str, str], list[np.ndarray]]) -> list[dict[str, Any]]:
    frozen, adapted = (np.concatenate(found[world, arm]) for arm in ARMS)
    rng, rows = np.random.default_rng(0), []
    for name, values in (
        ("frozen", frozen),
        ("adapted", adapted),
        ("adapted - frozen", adapted - frozen),
    ):
        means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(2000)]
        low, high = np.percentile(means, [2.5, 97.5])
        rows.append(
            {
                "world": world,
                "arm": name,
                "rate": float(values.mean()),
                "low": float(low),
                "high": float(high),
            }
        )
        print(f"{world:<30} {name:<18} {values.mean():8.4f} [{low:.4f}, {high:.4f}]")
    return rows
