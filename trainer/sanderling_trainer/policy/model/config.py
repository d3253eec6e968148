"""Everything that can be set about a policy, in one frozen place, each field with its meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Config:
    """The defaults are what the demo runs with.

    language_model: a Hugging Face id or folder, or "minilm" for the packaged all-MiniLM-L6-v2.
    max_tokens: longer texts are cut there.
    dim: d, the dimension of item and user vectors: the dial that sizes the rest.
    state: c, the number of channels of the recurrent state; three times d unless given.
    hidden: the width of the layer between state and user vector; three times d unless given.
    linear_start: begin as the closed-form linear recommender of the log (`policy.linear`) instead of at random.
    id_dropout: share of items whose learned residual is hidden in a step, so that text alone must work too.
    dropout: share of the normalised state's channels hidden in a step of the warm start.
    context_dropout: share of users whose context is hidden in a step, so that no context works too.
    visit_hours: events with no longer gap are one visit; the state before a visit predicts what is liked in it. With 0
        each event is predicted by all before it, as suits an app that shows a new slate after every event.
    horizon_days: a visit's state also predicts what is liked so many days later; 0 for the visit alone.
    epochs: passes over the log in the supervised warm start, at most; it stops early on an inner split.
    learning_rate: of the warm start (AdamW with one cosine cycle).
    weight_decay: of the warm start.
    accumulate: batches whose gradients make one step.
    batch_events: events in a batch; users are put together until it is full.
    full_softmax: the largest catalogue that the warm start scores whole; a larger one by a sample.
    negatives: S, how many items are drawn for a batch of the sampled softmax, beside the batch's own.
    policy_epochs: passes over the logged decisions.
    policy_learning_rate: of the policy gradient.
    weight_cap: c of the off-policy correction, the largest importance weight.
    kl: τ, the price of leaving the reference policy.
    supervision: weight of next-item cross-entropy beside the policy gradient; retraining on devices' logs uses none.
    slate: K, the slots of a slate.
    epsilon: share of slots that explore.
    pool: M, the best items among which exploration draws.
    guarded: slots in front that never explore.
    daily: explored slots that a user is shown on one day, at most; no limit unless given.
    scheme: how devices explore (docs/MATH.md); `epsilon` is that of `sequential` and `mixture`, `temperature` that of
        `softmax`. The judge understands logs of `sequential` alone, and leaves others out.
    seed: of everything random.
    """

    language_model: str = "minilm"
    max_tokens: int = 64
    dim: int = 64
    state: int = 0
    hidden: int = 0
    linear_start: bool = True
    id_dropout: float = 0.2
    dropout: float = 0.0
    context_dropout: float = 0.3
    visit_hours: float = 0.0
    horizon_days: float = 0.0
    epochs: int = 40
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    batch_events: int = 4096
    accumulate: int = 1
    full_softmax: int = 100_000
    negatives: int = 1024
    policy_epochs: int = 6
    policy_learning_rate: float = 2e-4
    weight_cap: float = 20.085536923187668
    kl: float = 0.3
    supervision: float = 0.5
    slate: int = 10
    epsilon: float = 0.1
    pool: int = 50
    guarded: int = 0
    daily: int | None = None
    scheme: str = "sequential"
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("state", "hidden"):
            if getattr(self, name) == 0:
                object.__setattr__(self, name, 3 * self.dim)

    def epsilons(self, slots: int) -> NDArray[np.float64]:
        """Return the epsilon of each slot of a slate, float64 [1, slots]."""
        return np.where(np.arange(slots) < self.guarded, 0.0, self.epsilon)[None]

    @classmethod
    def for_visits(cls, hours: float, horizon_days: float, **settings: Any) -> Config:
        """Return the configuration for apps whose users come in visits, such as shops.

        Fewer and smaller steps and dropout, as a shop's validation window chose them (`bench.quality`).
        """
        chosen = {"dropout": 0.4, "learning_rate": 1.5e-3, "epochs": 4}
        return cls(visit_hours=hours, horizon_days=horizon_days, **{**chosen, **settings})
