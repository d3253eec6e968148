"""The policy network: item tower, recurrent state in its parallel form, and the softmax over the catalogue.

The same equations, one event at a time, run on the device in `sanderling.ranking.user_model`. Refuses to know losses and logs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from sanderling.errors import SanderlingError
from sanderling_trainer.data.popularity import COUNTS, FEATURES, Trends
from sanderling_trainer.policy.model.config import Config
from sanderling_trainer.policy.model.recurrence import recurrence


class DivergedError(SanderlingError):
    """Learning ended with numbers that are none: nothing may be made of such a policy."""


class PolicyNetwork(nn.Module):
    """π(i | state, context) = softmax_i(u · v_i + b_i + w · f_i).

    Item vectors are v_i = A t_i + r_i: the text's vector t_i [t] projected, and a learned residual that new items lack.
    The trend features f_i of the day, how popular an item has been of late, have learned weights w; on devices, b_i +
    w · f_i of the release's day is the item's bias.
    """

    text: Tensor
    contexts: Tensor
    trend: Tensor
    new_item: Tensor

    def __init__(self, config: Config, text: Tensor, contexts: Tensor, kinds: int) -> None:
        """Text vectors float32 [n, t] of the items and [m, t] of the contexts are fixed; `kinds` counts event kinds."""
        super().__init__()
        n, t = text.shape
        d, c, h = config.dim, config.state, config.hidden
        self.register_buffer("text", text)
        self.register_buffer("contexts", contexts)
        self.project = nn.Parameter(torch.randn(d, t) / t**0.5)
        self.residual = nn.Parameter(torch.zeros(n, d))
        self.bias = nn.Parameter(torch.zeros(n))
        self.register_buffer("trend", torch.zeros(n, FEATURES))
        self.register_buffer("new_item", torch.zeros(FEATURES))
        self.trend_weights = nn.Parameter(torch.tensor([1.0 / COUNTS] * COUNTS + [0.0, 0.0]))
        self.input = nn.Parameter(torch.randn(c, d) / d**0.5)
        self.kind = nn.Parameter(torch.ones(kinds, c))
        horizon = torch.logspace(0.0, 2.3, c)
        self.decay_logit = nn.Parameter(torch.logit(torch.exp(-1.0 / horizon)))
        self.gain, self.shift = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))
        self.w1, self.b1 = nn.Parameter(torch.randn(h, c) / c**0.5), nn.Parameter(torch.zeros(h))
        self.w2, self.b2 = nn.Parameter(torch.randn(d, h) / h**0.5), nn.Parameter(torch.zeros(d))
        self.context_project = nn.Parameter(torch.zeros(d, t))
        self.dropout = nn.Dropout(config.dropout)

    @property
    def decay(self) -> Tensor:
        """Λ, float [c], each in (0, 1)."""
        return torch.sigmoid(self.decay_logit)

    def check_finite(self) -> None:
        """Raise `DivergedError` unless every parameter is finite."""
        odd = [name for name, values in self.named_parameters() if not torch.isfinite(values).all()]
        if odd:
            raise DivergedError(
                f"expected finite parameters, found NaN or infinite ones in {', '.join(odd)}: learning diverged;"
                " lower the learning rate, or look for odd numbers in what was learned from"
            )

    def items(self, hide: Tensor | None = None) -> Tensor:
        """Return the item vectors [n, d]; `hide` bool [n] takes the residual from some."""
        residual = self.residual if hide is None else self.residual.masked_fill(hide[:, None], 0.0)
        return self.text @ self.project.T + residual

    def states(self, items: Tensor, sequence: Tensor, kinds: Tensor) -> Tensor:
        """Return the state before each event and after the last, [b, s + 1, c].

        items [n, d]; sequence int64 [b, s] of item rows, -1 where padded at the end; kinds int64 [b, s].
        """
        known = (sequence >= 0).unsqueeze(-1)
        decay = self.decay
        x = (items[sequence.clamp(min=0)] @ self.input.T) * self.kind[kinds] * known
        h = recurrence(x * torch.sqrt(1.0 - decay**2), decay)
        return nn.functional.pad(h, (0, 0, 1, 0))

    def users(self, states: Tensor, contexts: Tensor | None = None) -> Tensor:
        """Return user vectors [..., d] for states [..., c] and rows of the context table int64 [...], -1 for none."""
        normal = nn.functional.layer_norm(states, states.shape[-1:], self.gain, self.shift)
        users = nn.functional.silu(self.dropout(normal) @ self.w1.T + self.b1) @ self.w2.T + self.b2
        if contexts is None or len(self.contexts) == 0:
            return users
        vectors = self.contexts[contexts.clamp(min=0)] * (contexts >= 0).unsqueeze(-1)
        return users + vectors @ self.context_project.T

    def follow(self, trends: Trends, day: int) -> None:
        """Take the trend features of the beginning of a day: those of the items, and of one that is not there yet."""
        table = torch.from_numpy(replace(trends, items=trends.items + 1).features([day])[0])
        self.trend.copy_(table[:-1])
        self.new_item.copy_(table[-1])

    def biases(self, rows: Tensor | None = None) -> Tensor:
        """Return b + w · f [n] with the network's own trend, or [c] of some rows."""
        bias, trend = (
            (self.bias, self.trend) if rows is None else (self.bias[rows], self.trend[rows])
        )
        return bias + trend @ self.trend_weights

    def logits(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the scores [..., n] with the network's own trend."""
        return users @ items.T + self.biases()
