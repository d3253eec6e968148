"""Learning a policy: a supervised warm start, then the off-policy policy gradient on logged decisions.

Refuses to read files and to judge what it learned.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sanderling_trainer.data.examples import Decisions, History
from sanderling_trainer.policy.batches import Batch, batches, decisions_in, first_seen, seen_at
from sanderling_trainer.policy.config import Config
from sanderling_trainer.policy.losses import kl_divergence, next_item, top_k_off_policy
from sanderling_trainer.policy.network import PolicyNetwork

PATIENCE = 4


@dataclass
class Trace:
    """What happened while learning, an entry an epoch."""

    loss: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)


def warm_start(network: PolicyNetwork, histories: Sequence[History], config: Config, repeats: bool) -> Trace:
    """Learn to predict the next liked item by full cross-entropy on the events before the inner split.

    Stops when the fresh events are predicted worse for 4 epochs, a quarter of all at the earliest, and keeps the best.
    `repeats` tells that users come back to items they had; otherwise those are taken from the softmax, as the device
    excludes them.
    """
    rng, trace, device = np.random.default_rng(config.seed), Trace(), network.bias.device
    torch.manual_seed(config.seed)
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    steps = max(1, sum(1 for _ in batches(histories, config.batch_events, device)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _cosine(config.epochs * steps, warm=steps))
    best, best_loss, worse = copy.deepcopy(network.state_dict()), math.inf, 0
    with tqdm(range(config.epochs), desc="warm start", unit="epoch") as bar:
        for epoch in bar:
            total = []
            for batch in batches(histories, config.batch_events, device, rng):
                hide = torch.rand(len(network.bias), device=device) < config.id_dropout
                loss = _supervised(network, batch, ~batch.fresh, repeats, hide, config.context_dropout)
                if loss is None:
                    continue
                _descend(optimiser, loss, network)
                schedule.step()
                total.append(loss.item())
            trace.loss.append(float(np.mean(total)))
            trace.validation.append(validation_loss(network, histories, config, repeats))
            bar.set_postfix(loss=f"{trace.loss[-1]:.3f}", validation=f"{trace.validation[-1]:.3f}")
            if trace.validation[-1] < best_loss:
                best, best_loss, worse = copy.deepcopy(network.state_dict()), trace.validation[-1], 0
            else:
                worse += 1
            if worse >= PATIENCE and epoch >= config.epochs // 4:
                break
    network.load_state_dict(best)
    return trace


@torch.no_grad()
def validation_loss(network: PolicyNetwork, histories: Sequence[History], config: Config, repeats: bool) -> float:
    """Return the mean cross-entropy of the fresh liked events; NaN when there are none."""
    losses, weights = [], []
    for batch in batches(histories, config.batch_events, network.bias.device):
        loss = _supervised(network, batch, batch.fresh, repeats, None, 0.0)
        if loss is not None:
            losses.append(loss.item())
            weights.append(int((batch.fresh & batch.liked).sum()))
    return float(np.average(losses, weights=weights)) if losses else math.nan


def policy_gradient(
    network: PolicyNetwork,
    histories: Sequence[History],
    decisions: Decisions,
    config: Config,
    repeats: bool,
) -> Trace:
    """Learn from logged decisions, held near the policy that the network is when this begins (DESIGN §5).

    Minimises the top-K off-policy-corrected surrogate + τ KL(π || π_ref) + supervision × next-item cross-entropy. The
    baseline b is the mean reward of the log.
    """
    rng, trace, device = np.random.default_rng(config.seed + 1), Trace(), network.bias.device
    torch.manual_seed(config.seed + 1)
    reference = copy.deepcopy(network).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(network.parameters(), config.policy_learning_rate, weight_decay=0.0)
    steps = max(1, sum(1 for _ in batches(histories, config.batch_events, device)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, _cosine(config.policy_epochs * steps, warm=steps))
    baseline = float(decisions.reward[decisions.judged].mean()) if decisions.judged.any() else 0.0
    with tqdm(range(config.policy_epochs), desc="policy gradient", unit="epoch") as bar:
        for _ in bar:
            total, divergence = [], []
            for batch in batches(histories, config.batch_events, device, rng):
                chosen, place = decisions_in(batch, decisions)
                if not len(chosen):
                    continue
                gain, kl = _off_policy(network, reference, batch, decisions, chosen, place, config, repeats, baseline)
                loss = gain + config.kl * kl
                if config.supervision > 0:
                    hide = torch.rand(len(network.bias), device=device) < config.id_dropout
                    supervised = _supervised(network, batch, batch.liked, repeats, hide, config.context_dropout)
                    loss = loss if supervised is None else loss + config.supervision * supervised
                _descend(optimiser, loss, network)
                schedule.step()
                total.append(gain.item())
                divergence.append(kl.item())
            trace.loss.append(float(np.mean(total)) if total else math.nan)
            trace.kl.append(float(np.mean(divergence)) if divergence else math.nan)
            bar.set_postfix(surrogate=f"{trace.loss[-1]:.4f}", kl=f"{trace.kl[-1]:.4f}")
    return trace


def _supervised(
    network: PolicyNetwork, batch: Batch, mask: Tensor, repeats: bool, hide: Tensor | None, context_dropout: float
) -> Tensor | None:
    wanted = mask & batch.liked & (batch.items >= 0)
    if not wanted.any():
        return None
    items = network.items(hide)
    states = network.states(items, batch.items, batch.kinds)[:, :-1][wanted]
    contexts = batch.contexts[wanted]
    dropped = torch.rand(contexts.shape, device=contexts.device) < context_dropout
    logits = network.logits(network.users(states, contexts.masked_fill(dropped, -1)), items)
    if not repeats:
        place, at = torch.nonzero(wanted, as_tuple=True)
        logits = logits.masked_fill(seen_at(first_seen(batch, len(items)), place, at), -math.inf)
    return next_item(logits.log_softmax(-1), batch.items[wanted])


def _off_policy(
    network: PolicyNetwork,
    reference: PolicyNetwork,
    batch: Batch,
    decisions: Decisions,
    chosen: np.ndarray,
    place: Tensor,
    config: Config,
    repeats: bool,
    baseline: float,
) -> tuple[Tensor, Tensor]:
    device = place.device
    at = torch.from_numpy(decisions.at[chosen]).to(device)
    contexts = torch.from_numpy(decisions.context[chosen]).to(device)
    seen = None if repeats else seen_at(first_seen(batch, len(network.bias)), place, at)
    log_policy = log_policy_at(network, batch, place, at, contexts, seen)
    with torch.no_grad():
        log_reference = log_policy_at(reference, batch, place, at, contexts, seen)
    shown = torch.from_numpy(decisions.items[chosen]).to(device)
    log_chosen = log_policy.gather(-1, shown.clamp(min=0))
    judged = torch.from_numpy(decisions.judged[chosen]).to(device) & torch.isfinite(log_chosen)
    gain = top_k_off_policy(
        log_chosen[judged],
        torch.from_numpy(decisions.logged[chosen]).to(device)[judged].float(),
        torch.from_numpy(decisions.reward[chosen]).to(device)[judged],
        baseline,
        config.weight_cap,
        config.slate,
    )
    return gain, kl_divergence(log_policy, log_reference)


def log_policy_at(
    network: PolicyNetwork, batch: Batch, place: Tensor, at: Tensor, contexts: Tensor, seen: Tensor | None
) -> Tensor:
    """Return log π [q, n] at q points: history `place[q]` of the batch after `at[q]` events; seen bool [q, n]."""
    items = network.items()
    states = network.states(items, batch.items, batch.kinds)[place, at]
    logits = network.logits(network.users(states, contexts), items)
    if seen is not None:
        logits = logits.masked_fill(seen, -math.inf)
    return logits.log_softmax(-1)


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor, network: PolicyNetwork) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()


def _cosine(steps: int, warm: int) -> Callable[[int], float]:
    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return factor
