"""Contexts of requests in the policy: their vectors, and what they do before any log had one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sanderling.bundle.features import FeatureSchema
from sanderling.ranking.features import FeatureMap
from sanderling_trainer.data.schema import Attributes
from sanderling_trainer.policy.feature_schema import fit_columns
from sanderling_trainer.policy.model.network import PolicyNetwork
from sanderling_trainer.policy.training.batches import batches
from sanderling_trainer.policy.training.context import TrainingContext

SHARE = 0.5
"""Of the deviation of a user's scores over items, that of a text context's where no log had one."""

SAMPLE = 1024
"""Items, and at most so many users' states, by which the two deviations are measured."""

Values = Sequence[Mapping[str, Any]]
Vectors = NDArray[np.float32]


def fit_context_features(declared: Attributes, values: Values) -> FeatureMap | None:
    """Return how the declared features of a log's contexts become numbers; None without any.

    What no context of the log has, or all have alike, has no feature.
    """
    # Twice, since a value that one context has may be that of a thousand events.
    columns = {name: [each.get(name) for each in values] * 2 for name in declared}
    features, mean = fit_columns(declared, columns)
    return FeatureMap(FeatureSchema(tuple(features)), mean) if features else None


def context_vectors(
    texts: Sequence[str],
    values: Values,
    features: FeatureMap | None,
    encode: Callable[[Sequence[str]], Vectors],
) -> Vectors:
    """Return the vectors [m, t + C] of contexts as devices make them; a text may be empty."""
    vectors = encode(texts)
    vectors[[not text for text in texts]] = 0.0
    if features is None:
        return vectors
    given = values or [{} for _ in texts]
    return np.concatenate([vectors, features.features_of(given)], axis=1)


@torch.no_grad()
def initialize_contexts(context: TrainingContext) -> None:
    """Let a context's text raise the items whose texts are like it, where no log had contexts.

    The projection of contexts becomes α A, that of items' texts times what makes the deviation of
    (α A t_j) · v_i over items i `SHARE` of that of u · v_i, both on average over items j and users.
    """
    network = context.network
    items = network.items()
    rows = _some_rows(items)
    of_texts = _deviation(network.text[rows] @ network.project.T, items[rows])
    of_users = _deviation(_users(context, items), items[rows])
    if of_texts > 0.0 and of_users > 0.0:
        network.context_project.copy_(SHARE * of_users / of_texts * network.project)


@torch.no_grad()
def start_contexts(network: PolicyNetwork) -> None:
    """Let a context's text raise the items whose texts are like it before contexts are learned.

    The projection of contexts becomes α A, as in `initialize_contexts`; α makes the deviation of
    (α A t_j) · v_i over items i 1, in logits, on average over items j. Items' vectors must still be
    those of their texts.
    """
    items = network.items()
    rows = _some_rows(items)
    of_texts = _deviation(network.text[rows] @ network.project.T, items[rows])
    if of_texts > 0.0:
        network.context_project.copy_(network.project / of_texts)


def _some_rows(items: torch.Tensor) -> torch.Tensor:
    n = len(items)
    return torch.arange(n, device=items.device)[:: -(-n // SAMPLE)]


def _users(context: TrainingContext, items: torch.Tensor) -> torch.Tensor:
    """Return the vectors [q, d] of some users after their last event, given all items' [n, d]."""
    network = context.network
    histories = _some_histories(context)
    users = []
    for batch in batches(histories, context.config.batch_events, context.device):
        lengths = (batch.items >= 0).sum(1)
        states = network.states(items, batch.items, batch.kinds)
        users.append(network.users(states[torch.arange(len(lengths)), lengths]))
    return torch.cat(users) if users else items[:0]


def _some_histories(context: TrainingContext) -> Sequence[Any]:
    found = context.histories
    histories = found if isinstance(found, Sequence) else found.read(0)
    return histories[:: -(-max(1, len(histories)) // SAMPLE)]


def _deviation(queries: torch.Tensor, items: torch.Tensor) -> float:
    """Return the root mean square over queries of the deviation of their scores over items."""
    if not len(queries) or len(items) < 2:
        return 0.0
    return float((queries @ items.T).var(dim=1).mean().sqrt())
