"""Objectives over a batch: the losses of `losses.py` applied to a network's scores."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.batches import (
    Batch,
    DecisionPoints,
    PopularityTable,
    TargetBatch,
    first_seen,
    seen_before,
    seen_pairs,
)
from sanderling_trainer.policy.training.context import TrainingContext
from sanderling_trainer.policy.training.losses import TopKOffPolicy, kl_divergence, next_items
from sanderling_trainer.policy.training.sampled_softmax import Proposal, item_vectors


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of the targets over the softmax.

    While the network is in training mode some residuals and contexts are hidden.
    """

    context: TrainingContext

    popularity: PopularityTable | None = None
    """Gives each point the popularity of its own day; without it the network's own day counts."""

    proposal: Proposal | None = None
    """If given, only the batch's own items and `config.negatives` draws from it are scored."""

    def __call__(self, batch: Batch, targets: TargetBatch) -> Tensor:
        """Return the loss over a batch."""
        if self.proposal is None:
            return self._full(batch, targets)
        return self._sampled(self.proposal, batch, targets)

    def with_fixed_draws(self) -> CrossEntropy:
        """Return the same objective with draws that repeat from pass to pass."""
        return replace(self, proposal=self.proposal and self.proposal.fixed())

    def _full(self, batch: Batch, targets: TargetBatch) -> Tensor:
        network = self.context.network
        items = network.items(self._hidden(len(network.bias)))
        users = self._users(batch.items, batch, targets, items)
        logits = users @ items.T + self._biases(targets)

        if not self.context.repeats:
            first = first_seen(batch, len(items))
            logits = logits.masked_fill(
                seen_before(first, targets.row, targets.position), -math.inf
            )
        log_policy = logits.log_softmax(-1)
        return next_items(
            log_policy, targets.point, targets.target, targets.weight, targets.influence
        )

    def _sampled(self, proposal: Proposal, batch: Batch, targets: TargetBatch) -> Tensor:
        """Return the loss over candidates; no tensor here has a row for each item."""
        certain = torch.cat([batch.items.flatten(), targets.target])
        rows, correction = proposal.candidates(certain, self.context.config.negatives)
        items = item_vectors(self.context.network, rows, self._hidden(len(rows)))

        # From here on items are numbered by their place among the candidates, which are sorted.
        sequence = torch.searchsorted(rows, batch.items).masked_fill(batch.items < 0, -1)
        target = torch.searchsorted(rows, targets.target)

        users = self._users(sequence, batch, targets, items)
        logits = users @ items.T + (self._biases(targets, rows) + correction)
        if not self.context.repeats:
            logits[seen_pairs(sequence, targets.row, targets.position)] = -math.inf
        log_policy = logits.log_softmax(-1)
        return next_items(log_policy, targets.point, target, targets.weight, targets.influence)

    def _biases(self, targets: TargetBatch, rows: Tensor | None = None) -> Tensor:
        """Return the items' biases.

        [n] with the network's own day; [q, n] with each point's own day, where `popularity` is
        given; [c] or [q, c] if `rows` names c items.
        """
        network = self.context.network
        if self.popularity is None:
            return network.biases(rows)
        own = network.bias if rows is None else network.bias[rows]
        return own + self.popularity.biases(targets.day, network.popularity_weights, rows)

    def _hidden(self, items: int) -> Tensor | None:
        """Return which items lose their residual in this step, bool [items]; None in evaluation."""
        if not self.context.network.training:
            return None
        return torch.rand(items, device=self.context.device) < self.context.config.id_dropout

    def _users(self, sequence: Tensor, batch: Batch, targets: TargetBatch, items: Tensor) -> Tensor:
        """Return the user vectors [q, d]; `sequence` int64 [b, s] indexes `items`."""
        network = self.context.network
        states = network.states(items, sequence, batch.kinds)[targets.row, targets.position]
        contexts = targets.context
        if network.training:
            draws = torch.rand(contexts.shape, device=contexts.device)
            contexts = contexts.masked_fill(draws < self.context.config.context_dropout, -1)
        return network.users(states, contexts)


@dataclass(frozen=True)
class OffPolicy:
    """The surrogate of the policy gradient, and the KL divergence from the reference."""

    context: TrainingContext
    reference: PolicyNetwork
    decisions: Decisions

    baseline: float
    """b of the surrogate."""

    weights: np.ndarray = field(init=False)
    """float64 [m], how much each decision counts."""

    marginal: np.ndarray = field(init=False)
    """float64 [m, K], the propensities of what was shown."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", self.decisions.weights())
        object.__setattr__(self, "marginal", self.decisions.learned_marginal())

    def __call__(self, points: DecisionPoints) -> tuple[Tensor, Tensor]:
        """Return minus the surrogate over some decisions, and the KL divergence there."""
        context = self.context
        with torch.no_grad():
            of_reference = boosted(self.decisions, points, scores_at(self.reference, points))
            hidden = hidden_items(self.decisions, points, of_reference, context.repeats)
            log_reference = log_policy_of(of_reference, hidden)
        of_network = boosted(self.decisions, points, scores_at(context.network, points))
        log_policy = log_policy_of(of_network, hidden)

        def tensor(column: np.ndarray) -> Tensor:
            return torch.from_numpy(column[points.indices]).to(context.device)

        # An empty slot, and one whose item this policy excludes, contributes no gradient.
        log_chosen = log_policy.gather(-1, tensor(self.decisions.items).clamp(min=0))
        judged = tensor(self.decisions.judged) & torch.isfinite(log_chosen)

        surrogate = TopKOffPolicy(self.baseline, context.config.weight_cap, context.config.slate)
        loss = surrogate(
            log_chosen[judged],
            tensor(self.marginal)[judged].float(),
            tensor(self.decisions.reward)[judged],
            tensor(self.weights)[:, None].expand_as(judged)[judged].float(),
        )
        return loss, kl_divergence(log_policy, log_reference)


def hidden_items(
    decisions: Decisions, points: DecisionPoints, scores: Tensor, repeats: bool
) -> Tensor | None:
    """Return which items could not be shown at q decisions, bool [q, n]; None for none.

    Unless `repeats`, users do not get what they had. Where the device logged its pool, all of the
    pool could be shown, and what the logging policy scores above the pool's last item and is not in
    it could not: the app kept it out. What it scores lower may have been kept out too, which no log
    says, unless the pool has all that was eligible: then nothing else could be shown.

    decisions: those to which `points` refer.
    scores: the logging policy's, boosts included, [q, n].
    """
    n = scores.shape[1]
    seen = (
        None if repeats else seen_before(first_seen(points.batch, n), points.row, points.position)
    )
    pools = torch.from_numpy(decisions.logged_pools(points.indices)).to(scores.device)
    if not pools.shape[1]:
        return seen

    is_item = pools >= 0
    in_pool = torch.zeros(len(pools), n + 1, dtype=torch.bool, device=scores.device)
    in_pool = in_pool.scatter(1, pools.masked_fill(~is_item, n), value=True)[:, :n]
    of_pool = scores.gather(1, pools.clamp(min=0)).masked_fill(~is_item, math.inf)
    lowest = of_pool.amin(1)
    is_whole = decisions.eligible[points.indices] <= decisions.pool[points.indices]
    lowest[torch.from_numpy(is_whole).to(scores.device) & is_item.any(1)] = -math.inf
    hidden = scores > lowest[:, None]
    return (hidden if seen is None else hidden | seen) & ~in_pool


def boosted(decisions: Decisions, points: DecisionPoints, scores: Tensor) -> Tensor:
    """Return scores [q, n] with what the app added to those of the logged pools.

    What it added to other items no log says.
    """
    if not decisions.boosted[points.indices].any():
        return scores
    pools = torch.from_numpy(decisions.logged_pools(points.indices)).to(scores.device)
    boosts = torch.from_numpy(decisions.logged_boosts(points.indices)).to(scores.device)
    return scores.scatter_add(1, pools.clamp(min=0), boosts.to(scores.dtype))


def scores_at(network: PolicyNetwork, points: DecisionPoints) -> Tensor:
    """Return the scores [q, n] of all items at q points."""
    items = network.items()
    states = network.states(items, points.batch.items, points.batch.kinds)
    return scores_of(network, items, states, points)


def scores_of(
    network: PolicyNetwork, items: Tensor, states: Tensor, points: DecisionPoints
) -> Tensor:
    """Return what `scores_at` does, given the item vectors and the states of the batch."""
    users = network.users(states[points.row, points.position], points.context)
    return network.logits(users, items)


def log_policy_of(scores: Tensor, hidden: Tensor | None) -> Tensor:
    """Return log π [q, n] of scores [q, n], -inf for the items of `hidden` bool [q, n] if given."""
    if hidden is not None:
        scores = scores.masked_fill(hidden, -math.inf)
    return scores.log_softmax(-1)
