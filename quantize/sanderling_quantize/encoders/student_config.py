"""How large a student is, and how long it is distilled: one configuration for each tier."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class StudentConfig:
    """Sizes of a student. What exceeds the teacher's own size is cut to it by `limited_to`."""

    layers: int
    """Transformer layers, spread evenly over the teacher's."""

    heads: int
    """Attention heads of a layer: the teacher's most important ones, by measurement."""

    neurons: int
    """Inner width of a layer's feed-forward part: the most important neurons, by measurement."""

    width: int
    """Width of the residual stream: principal directions of the teacher's."""

    group: int
    """How many numbers of a word vector share one byte; 0: an int8 row with a scale."""

    steps: int
    """Distillation steps; 0: none, the teacher's weights are used as they are."""

    learning_rate: float = 1e-3
    """Peak learning rate of distillation."""

    def limited_to(self, teacher: Any) -> StudentConfig:
        """Return the configuration cut to the sizes of a teacher's Hugging Face configuration.

        Where `group` does not divide the width, the result has group 0.
        """
        width = min(self.width, teacher.hidden_size)
        return replace(
            self,
            layers=min(self.layers, teacher.num_hidden_layers),
            heads=min(self.heads, teacher.num_attention_heads),
            neurons=min(self.neurons, teacher.intermediate_size),
            width=width,
            group=self.group if self.group and width % self.group == 0 else 0,
        )


UNLIMITED = 1 << 20  # more than any teacher has: `limited_to` cuts it to the teacher's size
TIERS = {
    "base": StudentConfig(
        layers=UNLIMITED, heads=UNLIMITED, neurons=UNLIMITED, width=UNLIMITED, group=0, steps=0
    ),
    "small": StudentConfig(
        layers=2, heads=UNLIMITED, neurons=UNLIMITED, width=UNLIMITED, group=4, steps=800
    ),
    "nano": StudentConfig(
        layers=2, heads=5, neurons=384, width=192, group=4, steps=1500, learning_rate=2e-3
    ),
}
