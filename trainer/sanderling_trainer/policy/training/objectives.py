"""What is minimised over a batch: the losses of `losses.py` on a network's scores. Refuses to descend."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.batches import (
    Batch,
    TargetBatch,
    TrendTable,
    earlier,
    first_seen,
    seen_at,
)
from sanderling_trainer.policy.training.losses import kl_divergence, next_items, top_k_off_policy
from sanderling_trainer.policy.training.sampled_softmax import Proposal, vectors


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of the targets over the softmax; in training some residuals and contexts are hidden.

    `repeats` tells that users come back to items they had; otherwise those are taken from the softmax, as the device
    excludes them. `trends` gives each point its own day's popularity, without it the network's own trend counts. With
    a `proposal` only the batch's own items and `config.negatives` draws from it are scored.
    """

    network: PolicyNetwork
    config: Config
    repeats: bool
    trends: TrendTable | None = None
    proposal: Proposal | None = None

    def __call__(self, batch: Batch, asked: TargetBatch) -> Tensor:
        """Return the loss of what a batch asks."""
        return (
            self._whole(batch, asked)
            if self.proposal is None
            else self._sampled(self.proposal, batch, asked)
        )

    def fixed(self) -> CrossEntropy:
        """Return the same with draws that are the same every time."""
        return replace(self, proposal=self.proposal and self.proposal.fixed())

    def _whole(self, batch: Batch, asked: TargetBatch) -> Tensor:
        items = self.network.items(self._hidden(len(self.network.bias)))
        logits = self._users(batch.items, batch, asked, items) @ items.T + self._biases(asked)
        if not self.repeats:
            logits = logits.masked_fill(
                seen_at(first_seen(batch, len(items)), asked.place, asked.at), -math.inf
            )
        return next_items(logits.log_softmax(-1), asked.point, asked.target, asked.weight)

    def _sampled(self, proposal: Proposal, batch: Batch, asked: TargetBatch) -> Tensor:
        """Return the same over candidates: nothing here has as many rows as the catalogue."""
        certain = torch.cat([batch.items.flatten(), asked.target])
        rows, correction = proposal.candidates(certain, self.config.negatives)
        items = vectors(self.network, rows, self._hidden(len(rows)))
        sequence = torch.searchsorted(rows, batch.items).masked_fill(batch.items < 0, -1)
        logits = self._users(sequence, batch, asked, items) @ items.T + (
            self._biases(asked, rows) + correction
        )
        if not self.repeats:
            logits[earlier(sequence, asked.place, asked.at)] = -math.inf
        return next_items(
            logits.log_softmax(-1),
            asked.point,
            torch.searchsorted(rows, asked.target),
            asked.weight,
        )

    def _biases(self, asked: TargetBatch, rows: Tensor | None = None) -> Tensor:
        """Return [n], or [q, n] where each point has its own day's; of some rows only when they are given."""
        network = self.network
        if self.trends is None:
            return network.biases(rows)
        own = network.bias if rows is None else network.bias[rows]
        return own + self.trends.biases(asked.day, network.trend_weights, rows)

    def _hidden(self, items: int) -> Tensor | None:
        network = self.network
        return (
            torch.rand(items, device=network.bias.device) < self.config.id_dropout
            if network.training
            else None
        )

    def _users(self, sequence: Tensor, batch: Batch, asked: TargetBatch, items: Tensor) -> Tensor:
        """Return user vectors [q, d]; `sequence` int64 [b, s] are places in `items`."""
        states = self.network.states(items, sequence, batch.kinds)[asked.place, asked.at]
        contexts = asked.context
        if self.network.training:
            dropped = (
                torch.rand(contexts.shape, device=contexts.device) < self.config.context_dropout
            )
            contexts = contexts.masked_fill(dropped, -1)
        return self.network.users(states, contexts)


def off_policy(
    network: PolicyNetwork,
    reference: PolicyNetwork,
    batch: Batch,
    decisions: Decisions,
    counts: np.ndarray,
    chosen: np.ndarray,
    place: Tensor,
    config: Config,
    repeats: bool,
    baseline: float,
) -> tuple[Tensor, Tensor]:
    """Return the surrogate of the policy gradient over decisions, and the KL divergence from the reference there.

    `counts` [m] says how much each decision counts; `chosen` int64 [q] are those of this batch, `place` int64 [q] their
    histories in it.
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
        torch.from_numpy(counts[chosen]).to(device)[:, None].expand_as(judged)[judged].float(),
        baseline,
        config.weight_cap,
        config.slate,
    )
    return gain, kl_divergence(log_policy, log_reference)


def log_policy_at(
    network: PolicyNetwork,
    batch: Batch,
    place: Tensor,
    at: Tensor,
    contexts: Tensor,
    seen: Tensor | None,
) -> Tensor:
    """Return log π [q, n] at q points: history `place[q]` of the batch after `at[q]` events; seen bool [q, n]."""
    items = network.items()
    states = network.states(items, batch.items, batch.kinds)[place, at]
    logits = network.logits(network.users(states, contexts), items)
    if seen is not None:
        logits = logits.masked_fill(seen, -math.inf)
    return logits.log_softmax(-1)
