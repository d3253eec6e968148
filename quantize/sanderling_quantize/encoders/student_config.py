"""The one dial: what an encoder keeps of its teacher. Refuses to know how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Shape:
    """What a student keeps of its teacher; nothing larger than the teacher has.

    layers: transformer layers, spread evenly; heads, neurons: the most important ones of each layer,
    by measurement; width: of the residual stream, the principal directions of the teacher's; group: how many numbers
    of a word's vector share one byte (0, or where they do not divide the width: a byte each); steps: of distillation
    (0: none, the teacher's weights serve), with their peak `learning_rate`.
    """

    layers: int
    heads: int
    neurons: int
    width: int
    group: int
    steps: int
    learning_rate: float = 1e-3

    def within(self, config: Any) -> Shape:
        """Return the shape cut to what a teacher of this configuration has."""
        width = min(self.width, config.hidden_size)
        return replace(
            self,
            layers=min(self.layers, config.num_hidden_layers),
            heads=min(self.heads, config.num_attention_heads),
            neurons=min(self.neurons, config.intermediate_size),
            width=width,
            group=self.group if self.group and width % self.group == 0 else 0,
        )


WHOLE = 1 << 20
TIERS = {
    "base": Shape(layers=WHOLE, heads=WHOLE, neurons=WHOLE, width=WHOLE, group=0, steps=0),
    "small": Shape(layers=2, heads=WHOLE, neurons=WHOLE, width=WHOLE, group=4, steps=800),
    "nano": Shape(
        layers=2, heads=5, neurons=384, width=192, group=4, steps=1500, learning_rate=2e-3
    ),
}
