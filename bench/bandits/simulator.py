"""Part "simulator": does retraining on its own logs improve a policy, and which part of it matters?

A simulator fitted to a real log (Online Retail: the 400 items with most buyers, users with five of
them) gives each item's attraction for each user, so the value of a policy is exact: the expected
clicks on its greedy slate of five under position bias. Tastes drift, a tenth of the items appears
later, rewards are delayed.

Protocol: 2,500 users have 4 purchases each, drawn by attraction times exposure: items that the shop
displays sell better than they attract (a lognormal factor an item), and cross-entropy on purchases
learns that too. Release 1 is learned from them by cross-entropy. Each release shows every user two
ε-greedy slates (ε .2 among the 30 best); clicks become events; the next release learns from all
decisions whose rewards have arrived, each with its own logged propensity. Value: 300 other users,
exact, at the time of the release. Seeds draw another simulator, other users, other logs. Intervals:
Student's t over seeds, paired for differences. Settings were chosen on one other seed.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.evaluation.simulators.click_models import PositionBias
from sanderling_trainer.evaluation.simulators.environment import Session, slate_value
from sanderling_trainer.evaluation.simulators.fitted import (
    FittedEnvironment,
    SimulatorSettings,
    fit_simulator,
)
from sanderling_trainer.evaluation.simulators.logging import draw_slates, simulated_decisions
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.language_model import LanguageModel
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.policy_gradient import policy_gradient
from sanderling_trainer.policy.training.warm_start import warm_start

ITEMS, LOGGED, JUDGED, BOUGHT, RELEASES, ROUNDS = 400, 2500, 300, 4, 5, 2
EXPOSURE_SPREAD = 1.5
READING = PositionBias((1.0, 0.8, 0.6, 0.5, 0.4))
SLOTS, POOL, EPSILON = READING.slots, 30, 0.2
SETTINGS = SimulatorSettings(
    mean_attraction=0.05, drift=0.03, mean_delay=1.0, new_item_share=0.1, horizon=RELEASES
)
CONFIG = Config(
    dim=32, state=64, hidden=64, epochs=12, batch_events=2048, policy_epochs=3,
    policy_learning_rate=1e-3, kl=0.1,
    supervision=0.0, slate=SLOTS, epsilon=EPSILON, pool=POOL,
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """How a release learns; `learn` None keeps the first, `baseline` None is the mean reward."""

    name: str
    learn: str | None = "policy gradient"
    corrected: bool = True
    baseline: float | None = -0.9
    slate: int = SLOTS
    kl: float = CONFIG.kl


VARIANTS = (
    Variant("full"),
    Variant("never retrained", learn=None),
    Variant("cross-entropy only", learn="cross-entropy"),
    Variant("without correction", corrected=False),
    Variant("without top-K", slate=1),
    Variant("without KL", kl=0.0),
    Variant("baseline at the mean reward", baseline=None),
    Variant("raw ±1, no baseline", baseline=0.0),
)


def run(data: Path, seeds: int) -> list[dict[str, Any]]:
    """Return values by release of each variant, and paired differences at the last."""
    user, item, texts = read(data / "online_retail")
    text = LanguageModel("minilm").encode(texts)
    values = {variant.name: np.zeros((seeds, RELEASES)) for variant in VARIANTS}
    bounds = np.zeros((seeds, 2, RELEASES))
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        world = fit_simulator(user, item, texts, READING, rng, SETTINGS)
        users = rng.permutation(world.users)[: LOGGED + JUDGED]
        log_exposure = EXPOSURE_SPREAD * rng.standard_normal(ITEMS)
        bought = [purchases(world, one, log_exposure, rng) for one in users]
        first = learn_first(bought[:LOGGED], text, seed)
        for variant in VARIANTS:
            values[variant.name][seed] = releases(world, users, bought, first, variant, seed)
        bounds[seed] = bounds_of(world, users[LOGGED:], bought[LOGGED:])
        print(
            f"simulator {seed}: "
            + ", ".join(f"{name} {found[seed, -1]:.3f}" for name, found in values.items())
        )
    values |= {"uniform": bounds[:, 0], "best": bounds[:, 1]}
    return rows_of(values, seeds)


def read(folder: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return users and items of the events of the most bought items, from 0, and the texts."""
    with gzip.open(folder / "interactions.csv.gz", "rt", newline="", encoding="utf-8") as file:
        pairs = {(row["user_id"], row["item_id"]) for row in csv.DictReader(file)}
    with (folder / "items.csv").open(newline="", encoding="utf-8") as file:
        text = {row["item_id"]: row["text"] for row in csv.DictReader(file)}
    users, items = (np.array(column) for column in zip(*sorted(pairs), strict=True))
    names, code, counts = np.unique(items, return_inverse=True, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:ITEMS]
    place = np.full(len(names), -1)
    place[most] = np.arange(ITEMS)
    kept = place[code] >= 0
    _, user, bought = np.unique(users[kept], return_inverse=True, return_counts=True)
    enough = bought[user] >= 5
    return (
        np.unique(user[enough], return_inverse=True)[1],
        place[code][kept][enough],
        [text[names[at]] for at in most],
    )


def purchases(
    world: FittedEnvironment, user: int, log_exposure: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw items without replacement by attraction at time 0 times exposure (Gumbel top-k)."""
    log_chance = np.log(world.attraction(np.array([user]), 0)[0]) + log_exposure
    log_chance[~world.eligible(np.array([user]), 0)[0]] = -np.inf
    return np.argsort(-(log_chance + rng.gumbel(size=len(log_chance))))[:BOUGHT]


def history(items: np.ndarray, clicked: int, is_validation: bool) -> History:
    """Return a history whose last `clicked` events are clicks (1), the others purchases (0)."""
    kinds = np.zeros(len(items), np.int64)
    kinds[len(items) - clicked :] = 1
    return History(
        items,
        kinds,
        np.ones(len(items), bool),
        np.full(len(items), -1),
        np.full(len(items), is_validation),
    )


def learn_first(bought: list[np.ndarray], text: np.ndarray, seed: int) -> PolicyNetwork:
    """Learn the first release from purchases; every tenth user stops it early."""
    torch.manual_seed(seed)
    network = PolicyNetwork(CONFIG, torch.from_numpy(text), torch.zeros(0, text.shape[1]), 2)
    made = [history(items, 0, is_validation=at % 10 == 0) for at, items in enumerate(bought)]
    warm_start(TrainingContext(network, made, replace(CONFIG, seed=seed), repeats=False))
    return network


def releases(
    world: FittedEnvironment,
    users: np.ndarray,
    bought: list[np.ndarray],
    first: PolicyNetwork,
    variant: Variant,
    seed: int,
) -> np.ndarray:
    """Return the exact value of each release, float64 [RELEASES], at its time."""
    rng, network = np.random.default_rng(seed), clone(first)
    events, clicks = [items.copy() for items in bought[:LOGGED]], np.zeros(LOGGED, np.int64)
    log: list[tuple[Decisions, np.ndarray]] = []
    found = np.zeros(RELEASES)
    for release in range(RELEASES):
        found[release] = value(world, users[LOGGED:], bought[LOGGED:], network, release)
        if variant.learn is None or release == RELEASES - 1:
            continue
        log += [
            show(world, users[:LOGGED], events, clicks, network, release, rng)
            for _ in range(ROUNDS)
        ]
        made = [
            history(items, int(count), at % 10 == 0)
            for at, (items, count) in enumerate(zip(events, clicks, strict=True))
        ]
        if variant.learn == "cross-entropy":
            config = replace(CONFIG, seed=seed + release)
            warm_start(TrainingContext(network, made, config, repeats=False))
        else:
            improve(network, made, joined(log, release + 1), variant, seed + release)
    return found


def clone(network: PolicyNetwork) -> PolicyNetwork:
    """Return a network of the same weights."""
    made = PolicyNetwork(CONFIG, network.text, network.contexts, 2)
    made.load_state_dict(network.state_dict())
    return made


@torch.no_grad()
def scores(network: PolicyNetwork, events: list[np.ndarray], clicks: np.ndarray) -> np.ndarray:
    """Return the logits [b, n] after each user's events."""
    longest, vectors = max(len(items) for items in events), network.items()
    sequence = np.stack(
        [np.pad(items, (0, longest - len(items)), constant_values=-1) for items in events]
    )
    ends = torch.tensor([len(items) for items in events])
    places = np.arange(longest)
    kinds = (places >= (ends.numpy() - clicks)[:, None]) & (places < ends.numpy()[:, None])
    states = network.states(
        vectors, torch.from_numpy(sequence), torch.from_numpy(kinds.astype(np.int64))
    )
    return (
        network.logits(network.users(states[torch.arange(len(events)), ends]), vectors)
        .numpy()
        .astype(np.float64)
    )


def left(
    world: FittedEnvironment, users: np.ndarray, events: list[np.ndarray], time: int
) -> np.ndarray:
    """Return what exists and was not had, bool [b, n]."""
    found = world.eligible(users, time).copy()
    for row, items in enumerate(events):
        found[row, items] = False
    return found


def value(
    world: FittedEnvironment,
    users: np.ndarray,
    events: list[np.ndarray],
    network: PolicyNetwork,
    time: int,
) -> float:
    """Return the exact expected clicks on greedy slates of users who were never logged."""
    found = np.where(
        left(world, users, events, time), scores(network, events, np.zeros(len(users))), -np.inf
    )
    return float(
        slate_value(world, users, np.argsort(-found, axis=1, kind="stable")[:, :SLOTS], time).mean()
    )


def show(
    world: FittedEnvironment, users: np.ndarray, events: list[np.ndarray], clicks: np.ndarray,
    network: PolicyNetwork, time: int, rng: np.random.Generator,
) -> tuple[Decisions, np.ndarray]:  # fmt: skip
    """Show every user a slate and append the clicks to `events`.

    Returns the decisions, and when each reward arrives.
    """
    eligible = left(world, users, events, time)
    slates = draw_slates(scores(network, events, clicks), eligible, SLOTS, POOL, EPSILON, rng)
    feedback = Session(world, users, rng, time).step(slates.items)
    at = np.array([len(items) for items in events])
    for row in range(len(users)):
        new = slates.items[row, feedback.clicks[row]]
        events[row] = np.concatenate([events[row], new])
        clicks[row] += len(new)
    known = np.ones_like(feedback.clicks)
    made = simulated_decisions(slates, feedback, known, np.arange(len(users)), at)
    return made, time + 1 + world.reward_delays(slates.items.shape, rng)


def joined(log: list[tuple[Decisions, np.ndarray]], now: int) -> Decisions:
    """Return all decisions so far, judged where the reward has arrived."""
    parts = [replace(made, judged=due <= now) for made, due in log]
    names = (
        "history",
        "position",
        "items",
        "marginal",
        "conditional",
        "reward",
        "judged",
        "context",
        "ranks",
        "group",
    )
    return Decisions(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    )


def improve(
    network: PolicyNetwork, made: list[History], decisions: Decisions, variant: Variant, seed: int
) -> None:
    """Take one retraining by policy gradient; without correction every weight is 1."""
    config = replace(CONFIG, slate=variant.slate, kl=variant.kl, seed=seed)
    if not variant.corrected:
        config = replace(config, weight_cap=1.0)
        decisions = replace(decisions, marginal=np.full(decisions.marginal.shape, 1e-12))
    context = TrainingContext(network, made, config, repeats=False)
    policy_gradient(context, decisions, variant.baseline)


def bounds_of(world: FittedEnvironment, users: np.ndarray, bought: list[np.ndarray]) -> np.ndarray:
    """Return the values of uniform and of best slates, float64 [2, RELEASES]."""
    found = np.zeros((2, RELEASES))
    for time in range(RELEASES):
        eligible, attraction = left(world, users, bought, time), world.attraction(users, time)
        mean = (attraction * eligible).sum(axis=1) / eligible.sum(axis=1)
        found[0, time] = READING.probabilities(np.tile(mean[:, None], SLOTS)).sum(axis=1).mean()
        best = np.argsort(-np.where(eligible, attraction, -1.0), axis=1)[:, :SLOTS]
        found[1, time] = slate_value(world, users, best, time).mean()
    return found


def rows_of(values: dict[str, np.ndarray], seeds: int) -> list[dict[str, Any]]:
    """Return the rows: values by release, gain from first to last, and differences to `full`."""
    rows = []
    for name, found in values.items():
        rows += [
            row(name, f"value of release {at + 1}", found[:, at], seeds) for at in range(RELEASES)
        ]
        rows.append(row(name, "last release - first", found[:, -1] - found[:, 0], seeds))
        if name not in ("full", "uniform", "best"):
            rows.append(
                row(
                    "full",
                    f"less {name}, last release",
                    values["full"][:, -1] - found[:, -1],
                    seeds,
                )
            )
    return rows


def row(name: str, metric: str, found: np.ndarray, seeds: int) -> dict[str, Any]:
    """Return one row with Student's interval over seeds."""
    half = student.ppf(0.975, seeds - 1) * found.std(ddof=1) / seeds**0.5 if seeds > 1 else np.nan
    mean = float(found.mean())
    return {
        "data": "simulator",
        "model": name,
        "metric": metric,
        "value": mean,
        "low": mean - half,
        "high": mean + half,
        "seeds": seeds,
    }
