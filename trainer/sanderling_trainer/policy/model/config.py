"""The configuration of a policy: its sizes, how it is trained, and how devices explore with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from sanderling.bundle.manifest import MAX_PREFIX, Exploration, Sizes
from sanderling_quantize.settings import checked, types_of

Natural = Annotated[int, Meta(ge=0)]
Count = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[float, Meta(ge=0.0)]
Positive = Annotated[float, Meta(gt=0.0)]
Prefix = Annotated[str, Meta(max_length=MAX_PREFIX)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]


@dataclass(frozen=True)
class Config:
    """Settings of a policy; `sanderling train` chooses some by the log (`choose_settings`).

    Raises `ValueError` for a value out of its bounds.
    """

    language_model: str = "minilm"
    """A Hugging Face id or folder, or "minilm" for the packaged all-MiniLM-L6-v2."""

    item_prefix: Prefix | None = None
    """What the language model reads before an item's text, such as "passage: "; by default what its
    folder says for documents, or nothing.
    """

    query_prefix: Prefix | None = None
    """What it reads before a context or a search, such as "query: "; by default what its folder
    says for queries, or nothing.
    """

    max_tokens: int = 64
    """Longer texts are truncated to so many tokens."""

    train_anyway: bool = False
    """Train, and let bundles pass, even where the language model cannot read the catalog's texts or
    the contexts (docs/LANGUAGES.md)."""

    dim: Count = 64
    """d, the dimension of item and user vectors; it sets the default of `state` and `hidden`."""

    state: Natural = 0
    """c, the number of channels of the recurrent state; 3 d unless given."""

    hidden: Natural = 0
    """h, the width of the layer between state and user vector; 3 d unless given."""

    linear_start: bool = True
    """Initialize from the closed-form linear recommender of the log instead of at random."""

    ridge: Positive = 200.0
    """λ of that linear recommender: the more events an item has, the larger."""

    memory: Positive = 300.0
    """Events until a channel of the linear start has forgotten to 1/e."""

    gain: NotNegative = 0.5
    """Weight of the linear start beside popularity."""

    id_dropout: Share = 0.2
    """Share of items whose residual is hidden in a step, so that text alone must work too."""

    dropout: Annotated[float, Meta(ge=0.0, le=0.9)] = 0.0
    """Share of the normalized state's channels hidden in a step of the warm start."""

    context_dropout: Share = 0.3
    """Share of users whose context is hidden in a step, so that none is needed to rank."""

    visit_hours: NotNegative = 0.0
    """Events with no longer gap form one visit, and the state before a visit predicts its
    likes. With 0 each event is predicted from all before it, as suits an app that shows a
    new slate after each.
    """

    horizon_days: NotNegative = 0.0
    """The state before a visit also predicts the likes of so many days after its start."""

    epochs: Natural = 40
    """Maximal passes over the log in the warm start, which stops early on the inner split."""

    stop_after: Natural | None = None
    """Of these epochs, which plan the learning rate, only so many are run; with 0 the linear start
    stays as it is.
    """

    learning_rate: Positive = 4e-3
    """Of the warm start: AdamW, a linear warm-up, then one cosine."""

    weight_decay: NotNegative = 0.05
    """Of the warm start."""

    batch_events: Count = 4096
    """Events in a batch, padding included; a longer history is a batch of its own."""

    accumulate: Count = 1
    """Batches whose gradients make one step."""

    full_softmax: Natural = 5_000
    """The largest catalog that the warm start scores in full; a larger one is sampled."""

    negatives: Count = 1024
    """S, how many items the sampled softmax draws for a batch, beside the batch's own."""

    learner: Literal["click_regression", "policy_gradient"] = "click_regression"
    """How logged decisions teach: `click_regression` (every shown slot, clicked or not) or
    `policy_gradient` (off policy, by importance weights); docs/MATH.md, "Learning".
    """

    policy_epochs: Natural = 6
    """Passes of the policy gradient over the logged decisions."""

    policy_learning_rate: Positive = 2e-4
    """Of the policy gradient."""

    weight_cap: Positive = 20.085536923187668
    """c of the off-policy correction, the largest importance weight: e³."""

    kl: NotNegative = 0.3
    """τ, the weight of the KL divergence from the reference policy."""

    supervision: NotNegative = 0.5
    """Weight of next-item cross-entropy beside the policy gradient; retraining on
    device logs uses 0.
    """

    slate: Annotated[int, Meta(ge=1, le=1000)] = 10
    """K, the slots of a slate."""

    epsilon: float = 0.1
    """Share of slots that explore."""

    newcomers: float = 0.3
    """Share of explored slots that show items with few impressions, while there are any."""

    pool: int = 50
    """M, the best items among which exploration draws."""

    guarded: int = 0
    """Leading slots that never explore."""

    daily: int | None = None
    """Maximal explored slots shown to a user in a day; unlimited unless given."""

    scheme: str = "sequential"
    """How devices explore (docs/MATH.md, "Exploration"). `epsilon` belongs to `sequential` and
    `mixture`, `temperature` to `softmax`. Off-policy evaluation covers `sequential` alone and
    leaves others out.
    """

    temperature: float = 1.0
    """T of the scheme `softmax`."""

    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    """Of all random numbers."""

    def __post_init__(self) -> None:
        checked(vars(self), TYPES)
        for name in ("state", "hidden"):
            if getattr(self, name) == 0:
                object.__setattr__(self, name, 3 * self.dim)

    def item_texts(self, texts: Sequence[str]) -> list[str]:
        """Return the texts of items as the language model reads them."""
        return [f"{self.item_prefix or ''}{text}" for text in texts]

    def query_texts(self, texts: Sequence[str]) -> list[str]:
        """Return contexts as the language model reads them."""
        return [f"{self.query_prefix or ''}{text}" for text in texts]

    def exploration(self) -> dict[str, Any]:
        """Return the fields of a manifest's `Exploration`, by name."""
        return {name: getattr(self, name) for name in types_of(Exploration)}

    def epsilons(self, slots: int, pinned: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the ε of each slot that is not pinned, float64 [m, slots]; `pinned` int64 [m] of
        the guarded ones are."""
        return np.where(np.arange(slots) < self.guarded - pinned[:, None], 0.0, self.epsilon)


TYPES = {**types_of(Config), "max_tokens": types_of(Sizes)["max_tokens"], **types_of(Exploration)}
"""Of each field; what a bundle's manifest has too is held to the bounds of the engine."""
