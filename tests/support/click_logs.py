"""Small networks, histories and logs of decisions to learn from."""

from __future__ import annotations

import numpy as np
import torch

from sanderling_trainer.data.histories import History
from sanderling_trainer.data.logged_decisions import Decisions
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.network import PolicyNetwork

SMALL = Config(dim=8, state=12, hidden=10, batch_events=256)
ITEMS = 12


def network(items: int = ITEMS) -> PolicyNetwork:
    torch.manual_seed(0)
    return PolicyNetwork(SMALL, torch.randn(items, 6), torch.empty(0, 6), 2).eval()


def history(rng: np.random.Generator, length: int) -> History:
    return History(
        items=rng.integers(0, ITEMS, length),
        kinds=rng.integers(0, 2, length),
        liked=np.ones(length, np.bool_),
        contexts=np.full(length, -1),
        is_validation=np.zeros(length, np.bool_),
        times=np.arange(length) * 86_400,
    )


def decisions_of(
    history: np.ndarray, items: np.ndarray, reward: np.ndarray, **columns: np.ndarray
) -> Decisions:
    """Return decisions at the beginning of histories [m] that showed items [m, K]."""
    m = len(history)
    return Decisions(
        history=history,
        position=columns.pop("position", np.zeros(m, np.int64)),
        items=items,
        marginal=np.ones(items.shape),
        conditional=np.ones(items.shape),
        reward=reward.astype(np.float32),
        judged=columns.pop("judged", np.ones(items.shape, np.bool_)),
        context=np.full(m, -1),
        ranks=np.zeros(items.shape, np.int64),
        group=history,
        **columns,
    )
