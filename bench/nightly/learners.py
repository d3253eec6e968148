"""How the arms learn between two nights: each returns the next release's network and popularity."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from bench.nightly.fleet import KINDS, Fleet
from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.data.popularity import DAY, PopularityHistory
from sanderling_trainer.data.tables import Catalog
from sanderling_trainer.evaluation.simulators.population import Population
from sanderling_trainer.jobs.candidate import judge_candidate
from sanderling_trainer.jobs.learner import learn
from sanderling_trainer.policy.checkpoint import Checkpoint, CheckpointMetadata
from sanderling_trainer.policy.exposure import Exposure
from sanderling_trainer.policy.living_catalog import change_between, hide_new_items, with_catalog
from sanderling_trainer.policy.model import linear_init
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.newcomers import calibrate_newcomers
from sanderling_trainer.policy.training.batches import batches
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.optimizer import Optimizer, Schedule
from sanderling_trainer.policy.training.warm_start import warm_start

DAYS = 14  # of decisions that teach
TRUTH_EPOCHS = 20
TRUTH_RATE = 3e-3

Vectors = NDArray[np.float32]
Learner = Callable[[TrainingContext, Decisions, Fleet, int], None]
"""Trains a context's network in place on some decisions, after a night."""


def first_release(people: Population, text: Vectors, config: Config, fleet: Fleet) -> Checkpoint:
    """Return the release of the first night, fitted to what was known before it."""
    n = people.born(0)
    histories = fleet.histories()
    popularity = PopularityHistory.of_histories(histories, n)
    network = _fresh(text[:n], histories, config)
    context = TrainingContext(network, histories, config, False, popularity)
    warm_start(context)
    calibrate_newcomers(context)
    network.set_popularity_day(popularity, people.first_day)
    metadata = CheckpointMetadata("nights", 1, 0, KINDS, False, 0, 0, "0" * 64)
    return Checkpoint(
        network, _catalog(people, n), config, metadata, popularity, Exposure.of_log(people.item, n)
    )


@dataclass(frozen=True)
class Outcome:
    """What a night's learning came to."""

    release: Checkpoint
    """Of the next night: the candidate, or the active release where the gate holds it."""

    verdict: str
    """The release gate's, "ship" for an arm without gate."""


def next_release(active: Checkpoint, fleet: Fleet, text: Vectors, night: int, arm: Arm) -> Outcome:
    """Let an arm learn after a night, on the next night's catalog and with its popularity."""
    people = fleet.people
    n = people.born(night + 1)
    day = people.first_day + night + 1
    catalog = _catalog(people, n)
    change = change_between(active.catalog, catalog)
    row_of = {each: row for row, each in enumerate(people.texts)}

    def encode(texts: Sequence[str]) -> Vectors:
        return text[[row_of[each] for each in texts]]

    candidate = with_catalog(active, catalog, change, encode)
    before = copy.deepcopy(candidate.network)
    histories = fleet.histories()
    popularity = PopularityHistory.of_histories(histories, n)
    candidate.network.set_popularity_day(popularity, day)
    context = TrainingContext(candidate.network, histories, active.config, False, popularity)
    held_out = _held_out(fleet, night) if arm.is_gated else np.empty(0, np.int64)
    assert arm.learner is not None
    arm.learner(context, _recent(fleet, night, held_out), fleet, night)
    context.network.set_popularity_day(popularity, day)

    verdict = "ship"
    if arm.is_gated:
        hide_new_items(before, change)
        serving = replace(context, network=before)
        judging = fleet.decisions(night)
        judging = judging.take(np.isin(judging.group, held_out))
        report = judge_candidate(serving, context, judging, active.metadata)
        verdict = report["gate"]["verdict"]
        if verdict == "hold":
            return Outcome(active, verdict)

    release = active.metadata.release + 1
    shown = fleet.decisions(night).items.ravel()
    metadata = replace(active.metadata, release=release, parent=release - 1)
    made = replace(
        candidate,
        popularity=popularity,
        exposure=candidate.exposure.plus(shown),
        metadata=metadata,
    )
    return Outcome(made, verdict)


def _held_out(fleet: Fleet, night: int) -> NDArray[np.int64]:
    """Return the third of the installs whose decisions of a night judge, and teach the next."""
    users = fleet.people.users
    return np.random.default_rng(night).permutation(users)[: users // 3]


def by_job(
    context: TrainingContext,
    decisions: Decisions,
    fleet: Fleet,
    night: int,
    **settings: object,
) -> None:
    """Learn as `sanderling retrain` does."""
    changed = replace(context.config, **settings)  # type: ignore[arg-type]
    learn(replace(context, config=changed), decisions)


def by_clicks(context: TrainingContext, decisions: Decisions, fleet: Fleet, night: int) -> None:
    """Continue the warm start, as if clicks were events like any other."""
    naive = replace(context, histories=_answers_as_events(context))
    config = replace(context.config, epochs=2, learning_rate=1e-3)
    warm_start(replace(naive, config=config))
    calibrate_newcomers(naive)


def refit(context: TrainingContext, decisions: Decisions, fleet: Fleet, night: int) -> None:
    """Fit a new network to all events, as if clicks were events like any other."""
    naive = replace(context, histories=_answers_as_events(context))
    fresh = _fresh(context.network.text.numpy(), naive.histories_in_memory, context.config)
    warm_start(replace(naive, network=fresh))
    calibrate_newcomers(replace(naive, network=fresh))
    context.network.load_state_dict(fresh.state_dict())


def by_truth(context: TrainingContext, decisions: Decisions, fleet: Fleet, night: int) -> None:
    """Fit the network to the true click probabilities of every item, at the users' states."""
    network = context.network
    n = len(network.bias)
    truth = torch.from_numpy(fleet.people.attraction(night + 1)[:, :n]).float()
    users = context.histories_in_memory[: len(truth)]
    parts = list(batches(users, context.config.batch_events, truth.device))
    optimizer = Optimizer(network, Schedule(TRUTH_RATE, 0.0, TRUTH_EPOCHS, len(parts)))
    scale = torch.nn.Parameter(torch.ones(()))
    offset = torch.nn.Parameter(torch.tensor(-4.0))
    effects = torch.optim.Adam([scale, offset], lr=0.02)
    rng = np.random.default_rng(night)
    network.train()
    for _ in range(TRUTH_EPOCHS):
        for index in rng.permutation(len(parts)):
            batch = parts[index]
            items = network.items()
            length = (batch.items >= 0).sum(dim=1)
            states = network.states(items, batch.items, batch.kinds)
            last = states[torch.arange(len(length)), length]
            logits = scale * network.logits(network.users(last), items) + offset
            wanted = truth[batch.indices]
            loss = binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / wanted.sum()
            effects.zero_grad()
            optimizer.accumulate_and_step(loss)
            effects.step()
    network.eval()


def _recent(fleet: Fleet, night: int, held_out: NDArray[np.int64]) -> Decisions:
    """Return the last days' decisions, of the last night without those that are held out."""
    decisions = fleet.decisions(max(0, night - DAYS + 1))
    last_night = decisions.time // DAY == decisions.time.max() // DAY
    return decisions.take(~(last_night & np.isin(decisions.group, held_out)))


def _answers_as_events(context: TrainingContext) -> list[History]:
    return [
        replace(each, is_response=np.zeros(len(each), np.bool_))
        for each in context.histories_in_memory
    ]


def _fresh(text: Vectors, histories: Sequence[History], config: Config) -> PolicyNetwork:
    torch.manual_seed(config.seed)
    contexts = torch.empty(0, text.shape[1])
    network = PolicyNetwork(config, torch.from_numpy(text.copy()), contexts, len(KINDS))
    factors = linear_init.ridge_factors(list(histories), len(text), config.dim, config.ridge)
    linear_init.initialize(network, factors)
    return network


def _catalog(people: Population, n: int) -> Catalog:
    ids = [str(row) for row in range(n)]
    texts = list(people.texts[:n])
    return Catalog(ids=ids, texts=texts, records=[{"title": text} for text in texts])


@dataclass(frozen=True)
class Arm:
    """One way to go through the nights; without a learner nothing is ever retrained."""

    learner: Learner | None
    explores: bool = True
    is_gated: bool = False


ARMS = {
    "never retrained": Arm(None),
    "naive refit": Arm(refit),
    "ours": Arm(by_job, is_gated=True),
    "ours without gate": Arm(by_job),
    "ours without exploration": Arm(by_job, explores=False),
    "ours, clicks as events": Arm(by_clicks),
    "policy gradient": Arm(partial(by_job, learner="policy_gradient", policy_epochs=3)),
    "best in class": Arm(by_truth),
}
