"""What is minimised over a batch: the losses of `losses.py` on a network's scores. Refuses to descend."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from sanderling_trainer.data.examples import Decisions
from sanderling_trainer.policy.batches import Batch, Questions, TrendTable, first_seen, seen_at
from sanderling_trainer.policy.config import Config
from sanderling_trainer.policy.losses import kl_divergence, next_items, top_k_off_policy
from sanderling_trainer.policy.network import PolicyNetwork


def supervised(
    network: PolicyNetwork, batch: Batch, asked: Questions, config: Config, repeats: bool, trends: TrendTable | None
) -> Tensor:
    """Cross-entropy of the targets over the full softmax; in training some residuals and contexts are hidden.

    `repeats` tells that users come back to items they had; otherwise those are taken from the softmax, as the device
    excludes them.
    """
    hide = torch.rand(len(network.bias), device=asked.at.device) < config.id_dropout if network.training else None
    items = network.items(hide)
    states = network.states(items, batch.items, batch.kinds)[asked.place, asked.at]
    contexts = asked.context
    if network.training:
        contexts = contexts.masked_fill(torch.rand(contexts.shape, device=contexts.device) < config.context_dropout, -1)
    logits = network.users(states, contexts) @ items.T + network.bias
    if trends is not None:
        logits = logits + trends.biases(asked.day, network.trend_weights)
    if not repeats:
        logits = logits.masked_fill(seen_at(first_seen(batch, len(items)), asked.place, asked.at), -math.inf)
    return next_items(logits.log_softmax(-1), asked.point, asked.target, asked.weight)


def off_policy(
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
    """Return the surrogate of the policy gradient over decisions, and the KL divergence from the reference there.

    `chosen` int64 [q] are the decisions, `place` int64 [q] their histories in the batch.
    """
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
