"""How our policy learns the rating matrix, in two ways; each tenth of the scale is an event kind.

`learned from logs` is what the product does: uniform sessions of training users, a supervised warm
start on the next liked item, then policy gradient on the decisions of those sessions, with every
item's rating known and the exact propensity 1/R.

`distilled`: sessions of users drawn from the Gaussian fitted to the training users, first uniform,
then by the policy itself; at each step the network learns P(like) of every item given the session
so far, as the Gaussian's posterior has it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.special import ndtr
from torch.nn.functional import binary_cross_entropy_with_logits

from bench.bandits import gaussian
from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.policy_gradient import policy_gradient
from sanderling_trainer.policy.training.warm_start import warm_start

STEPS, TENTHS, FACTORS = 10, 10, 24
SIZES = Config(dim=64, state=128, hidden=128)


@dataclass(frozen=True)
class Learned:
    """Networks whose mean log policy is greedy's score, and the edges between kinds of ratings."""

    networks: list[PolicyNetwork]
    edges: np.ndarray

    def start(self, users: int) -> Walk:
        """Return users who had nothing yet."""
        return Walk(self, np.empty((users, 0), np.int64), np.empty((users, 0), np.int64))


@dataclass
class Walk:
    """The sessions so far: items and kinds int64 [b, s]."""

    policy: Learned
    items: np.ndarray
    kinds: np.ndarray

    @torch.no_grad()
    def scores(self) -> np.ndarray:
        """Return the mean log policy, float64 [b, n]."""
        logits = [last(network, self.items, self.kinds) for network in self.policy.networks]
        return np.mean([each.log_softmax(-1).numpy() for each in logits], axis=0, dtype=np.float64)

    def observe(self, items: np.ndarray, ratings: np.ndarray) -> None:
        """Append an event to each session."""
        self.items = np.concatenate([self.items, items[:, None]], axis=1)
        self.kinds = np.concatenate(
            [self.kinds, np.digitize(ratings, self.policy.edges)[:, None]], axis=1
        )


def last(network: PolicyNetwork, items: np.ndarray, kinds: np.ndarray) -> torch.Tensor:
    """Return the logits [b, n] after sessions [b, s]; an empty session is one padded event."""
    if items.shape[1] == 0:
        items, kinds = np.full((len(items), 1), -1), np.zeros((len(items), 1), np.int64)
    return all_steps(network, items, kinds)[:, -1]


def all_steps(network: PolicyNetwork, items: np.ndarray, kinds: np.ndarray) -> torch.Tensor:
    """Return the logits [b, s + 1, n] before each event and after the last."""
    vectors = network.items()
    states = network.states(vectors, torch.from_numpy(items), torch.from_numpy(kinds))
    return network.logits(network.users(states), vectors)


def begin(ratings: np.ndarray, text: np.ndarray, seed: int) -> tuple[PolicyNetwork, np.ndarray]:
    """Return a network that starts from the training users' factors and the kinds' mean ratings."""
    torch.manual_seed(seed)
    network = PolicyNetwork(SIZES, torch.from_numpy(text), torch.zeros(0, text.shape[1]), TENTHS)
    edges = np.quantile(ratings, np.arange(1, TENTHS) / TENTHS)
    kinds = np.digitize(ratings, edges)
    values, factors = np.linalg.eigh(np.cov(ratings.T))
    loadings = (factors * np.sqrt(np.maximum(values, 0.0)))[:, ::-1][:, :FACTORS] / 5.0
    with torch.no_grad():
        level = torch.tensor([ratings[kinds == kind].mean() / 5.0 for kind in range(TENTHS)])
        network.kind[:, ::2] = level[:, None].float()
        network.residual[:, :FACTORS] = torch.from_numpy(loadings.copy()).float()
        network.project.mul_(0.3)
        network.bias.copy_(torch.logit(torch.from_numpy((ratings > 0).mean(axis=0))))
        network.w2.mul_(0.1)
    return network, edges


def distilled(
    ratings: np.ndarray, text: np.ndarray, seed: int, shrink: float, steps: int = 400, b: int = 64
) -> Learned:
    """Learn P(like) from the posterior of simulated users."""
    rng, teacher = np.random.default_rng(seed), gaussian.fit(ratings, shrink)
    network, edges = begin(ratings, text, seed)
    root = np.linalg.cholesky(teacher.covariance + 1e-6 * np.eye(len(teacher.mean)))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, total_steps=steps, pct_start=0.12
    )
    for step in range(steps):
        users = teacher.mean + rng.standard_normal((b, len(root))) @ root.T
        own = Learned([network], edges) if step > steps // 4 and rng.random() < 0.5 else None
        items = session(users, own, rng)
        kinds = np.digitize(np.take_along_axis(users, items, axis=1), edges)
        loss = binary_cross_entropy_with_logits(
            all_steps(network, items, kinds), torch.from_numpy(chances(teacher, users, items))
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return Learned([network], edges)


def session(users: np.ndarray, policy: Learned | None, rng: np.random.Generator) -> np.ndarray:
    """Return the items int64 [b, 9] of uniform sessions, or of the policy's with ε = 1/5."""
    order = rng.random(users.shape).argsort(axis=1)
    if policy is None:
        return order[:, : STEPS - 1]
    walk, left, rows = policy.start(len(users)), np.ones(users.shape, bool), np.arange(len(users))
    for _ in range(STEPS - 1):
        greedy = np.where(left, walk.scores(), -np.inf).argmax(axis=1)
        chance = np.where(left, rng.random(users.shape), -1.0).argmax(axis=1)
        shown = np.where(rng.random(len(users)) < 0.2, chance, greedy)
        left[rows, shown] = False
        walk.observe(shown, users[rows, shown])
    return walk.items


def chances(teacher: gaussian.Gaussian, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Return P(like) float32 [b, s + 1, n] before each rating and after the last."""
    posterior, rows = teacher.start(len(users)), np.arange(len(users))
    found = [posterior.standardized()]
    for shown in items.T:
        posterior.observe(shown, users[rows, shown])
        found.append(posterior.standardized())
    return ndtr(np.stack(found, axis=1)).astype(np.float32)


def from_logs(
    ratings: np.ndarray, text: np.ndarray, seed: int, sessions: int = 12, gradient: bool = True
) -> Learned:
    """Learn by the product's own functions from uniform sessions."""
    rng = np.random.default_rng(seed)
    network, edges = begin(ratings, text, seed)
    config = replace(
        SIZES, id_dropout=0.0, epochs=8, batch_events=4096, policy_epochs=4,
        policy_learning_rate=1e-3, kl=0.02,
        supervision=0.0, slate=1, weight_cap=1000.0, seed=seed,
    )  # fmt: skip
    users = np.tile(np.arange(len(ratings)), sessions)
    items = rng.random((len(users), ratings.shape[1])).argsort(axis=1)[:, : 2 * STEPS]
    made = [
        history(ratings[user], row, edges, is_validation=user % 10 == 0)
        for user, row in zip(users, items, strict=True)
    ]
    context = TrainingContext(network, made, config, repeats=False)
    warm_start(context)
    if gradient:
        few = len(ratings) * 2
        policy_gradient(
            replace(context, histories=made[:few]), decisions(ratings, users[:few], items[:few])
        )
    return Learned([network], edges)


def history(
    ratings: np.ndarray, items: np.ndarray, edges: np.ndarray, is_validation: bool
) -> History:
    """Return a session as the product's history."""
    rated = ratings[items]
    return History(
        items,
        np.digitize(rated, edges),
        rated > 0,
        np.full(len(items), -1),
        np.full(len(items), is_validation),
    )


def decisions(ratings: np.ndarray, users: np.ndarray, items: np.ndarray) -> Decisions:
    """Return the first ten decisions of each session; each of R items left is a slot with 1/R."""
    n, m = ratings.shape[1], len(users) * STEPS
    at = np.tile(np.arange(STEPS), len(users))
    seen = np.zeros((len(users), STEPS, n), bool)
    for step in range(1, STEPS):
        seen[:, step] = seen[:, step - 1]
        seen[np.arange(len(users)), step, items[:, step - 1]] = True
    logged = np.repeat(1.0 / (n - at)[:, None], n, axis=1)
    return Decisions(
        history=np.repeat(np.arange(len(users)), STEPS),
        position=at,
        items=np.tile(np.arange(n), (m, 1)),
        marginal=logged,
        conditional=logged,
        reward=np.repeat(np.where(ratings[users] > 0, 1.0, -1.0), STEPS, axis=0).astype(np.float32),
        judged=~seen.reshape(m, n),
        context=np.full(m, -1),
        ranks=np.zeros((m, n), np.int64),
        group=np.repeat(users, STEPS),
    )
