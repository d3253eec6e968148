"""The policy network: item tower, recurrent state in its parallel form, softmax over the catalog.

The device runs the same equations one event at a time in `sanderling.ranking.user_model`.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from sanderling.errors import SanderlingError
from sanderling_trainer.data.popularity import COUNTS, FEATURES, PopularityHistory
from sanderling_trainer.policy.model.attribute_table import AttributeTable
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.recurrence import recurrence


class DivergedError(SanderlingError):
    """Training ended with parameters that are NaN or infinite; such a policy must not be used."""


class PolicyNetwork(nn.Module):
    """π(i | state, context) = softmax_i(u · v_i + b_i + w · f_i).

    Item vectors are v_i = A t_i + B ψ_i + r_i: the text's vector t_i [t] projected, the features
    ψ_i [F] of typed attributes likewise, and a learned residual that new items lack. The weights w
    of f_i, an item's recent popularity on a day, are learned; on devices the item's bias is
    b_i + w · f_i of the release's day.

    n items, t dimensions of text, d of items and users, c channels of state, h hidden units.
    """

    text: Tensor
    contexts: Tensor
    popularity: Tensor
    new_item_popularity: Tensor
    new_item_bias: Tensor

    def __init__(
        self,
        config: Config,
        text: Tensor,
        contexts: Tensor,
        kinds: int,
        attributes: AttributeTable | None = None,
    ) -> None:
        """Create a network at random.

        text: float32 [n, t], the text vectors of the items, fixed.
        contexts: float32 [m, t + C], the text vectors of the contexts and their C features, fixed.
        kinds: how many kinds of event there are.
        attributes: the features of the items' attributes; without attributes None.
        """
        super().__init__()
        n, t = text.shape
        d, c, h = config.dim, config.state, config.hidden

        # Items.
        self.register_buffer("text", text)
        self.register_buffer("contexts", contexts)
        self.project = nn.Parameter(torch.randn(d, t) / t**0.5)
        self.residual = nn.Parameter(torch.zeros(n, d))
        self.attributes = attributes
        self.feature_project = (
            None if attributes is None else nn.Parameter(torch.zeros(d, attributes.width))
        )
        self.bias = nn.Parameter(torch.zeros(n))
        self.register_buffer("new_item_bias", torch.zeros(()))
        self.register_buffer("popularity", torch.zeros(n, FEATURES))
        self.register_buffer("new_item_popularity", torch.zeros(FEATURES))
        self.popularity_weights = nn.Parameter(torch.tensor([1.0 / COUNTS] * COUNTS + [0.0, 0.0]))

        # State: the channels forget over horizons from 1 to 200 events.
        self.input = nn.Parameter(torch.randn(c, d) / d**0.5)
        self.kind = nn.Parameter(torch.ones(kinds, c))
        horizon = torch.logspace(0.0, 2.3, c)
        self.decay_logit = nn.Parameter(torch.logit(torch.exp(-1.0 / horizon)))

        # User vector.
        self.gain = nn.Parameter(torch.ones(c))
        self.shift = nn.Parameter(torch.zeros(c))
        self.w1 = nn.Parameter(torch.randn(h, c) / c**0.5)
        self.b1 = nn.Parameter(torch.zeros(h))
        self.w2 = nn.Parameter(torch.randn(d, h) / h**0.5)
        self.b2 = nn.Parameter(torch.zeros(d))
        self.context_project = nn.Parameter(torch.zeros(d, t))
        of_context = contexts.shape[1] - t
        self.context_feature_project = (
            nn.Parameter(torch.zeros(d, of_context)) if of_context else None
        )
        self.dropout = nn.Dropout(config.dropout)

    @property
    def decay(self) -> Tensor:
        """Λ, float [c], each in (0, 1)."""
        return torch.sigmoid(self.decay_logit)

    def check_finite(self) -> None:
        """Raise `DivergedError` unless every parameter is finite."""
        bad = [name for name, values in self.named_parameters() if not torch.isfinite(values).all()]
        if bad:
            raise DivergedError(
                f"expected finite parameters, found NaN or infinity in {', '.join(bad)}: training"
                " diverged; lower the learning rate, or look for NaN and infinity in the log and in"
                " the text vectors"
            )

    def items(self, hide: Tensor | None = None) -> Tensor:
        """Return the item vectors [n, d]; where `hide` bool [n] is true without the residual."""
        residual = self.residual if hide is None else self.residual.masked_fill(hide[:, None], 0.0)
        return self.content() + residual

    def content(self, rows: Tensor | None = None) -> Tensor:
        """Return what texts and attributes make of all items [n, d], or of some rows: the vectors
        of new items."""
        text = self.text if rows is None else self.text[rows]
        vectors = text @ self.project.T
        if self.attributes is None or self.feature_project is None:
            return vectors
        return vectors + self.attributes.project(self.feature_project, rows)

    def inputs(self, rows: Tensor) -> Tensor:
        """Return texts' vectors and features [r, t + F] of some rows."""
        text = self.text[rows]
        if self.attributes is None or self.feature_project is None:
            return text
        return torch.cat([text, self.attributes.as_matrix(rows)], dim=1)

    def newcomers(self, text: Tensor) -> Tensor:
        """Return the vectors [m, d] of items of which only the text's vectors [m, t] are known."""
        return text @ self.project.T

    def states(self, items: Tensor, sequence: Tensor, kinds: Tensor) -> Tensor:
        """Return the state before each event and after the last, [b, s + 1, c].

        items [n, d]; sequence int64 [b, s] of item rows, -1 where padded at the end;
        kinds int64 [b, s].
        """
        present = (sequence >= 0).unsqueeze(-1)
        decay = self.decay
        x = (items[sequence.clamp(min=0)] @ self.input.T) * self.kind[kinds] * present
        h = recurrence(x * torch.sqrt(1.0 - decay**2), decay)
        return nn.functional.pad(h, (0, 0, 1, 0))

    def users(self, states: Tensor, contexts: Tensor | None = None) -> Tensor:
        """Return user vectors [..., d].

        states [..., c]; contexts int64 [...] are rows of the context table, -1 for none.
        """
        normal = nn.functional.layer_norm(states, states.shape[-1:], self.gain, self.shift)
        users = nn.functional.silu(self.dropout(normal) @ self.w1.T + self.b1) @ self.w2.T + self.b2
        if contexts is None or len(self.contexts) == 0:
            return users
        vectors = self.contexts[contexts.clamp(min=0)] * (contexts >= 0).unsqueeze(-1)
        project: Tensor = self.context_project
        if self.context_feature_project is not None:
            project = torch.cat([project, self.context_feature_project], dim=1)
        return users + vectors @ project.T

    def set_popularity_day(self, popularity: PopularityHistory, day: int) -> None:
        """Set the popularity features to those of the beginning of a day, in days since 1970."""
        # One item more than the catalog has: without likes, so its features are a new item's.
        with_new_item = replace(popularity, items=popularity.items + 1)
        table = torch.from_numpy(with_new_item.features([day])[0])
        self.popularity.copy_(table[:-1])
        self.new_item_popularity.copy_(table[-1])

    def biases(self, rows: Tensor | None = None) -> Tensor:
        """Return b + w · f of the network's own day for all items [n], or for some rows."""
        if rows is None:
            return self.bias + self.popularity @ self.popularity_weights
        return self.bias[rows] + self.popularity[rows] @ self.popularity_weights

    def logits(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the scores [..., n] of users [..., d] with the popularity of the
        network's own day.
        """
        return users @ items.T + self.biases()
