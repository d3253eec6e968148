"""Behaviour -> user vector. One event costs O(1) time and memory: a diagonal linear recurrence.

With v the vector of the event's item, κ the gate of its kind, Λ = diag(decay):

    h' = Λ h + sqrt(1 - Λ²) (κ ⊙ W v)
    u  = W2 silu(W1 norm(h) + b1) + b2 + C x

The first is a linear recurrent unit (Orvieto et al. 2023, arXiv:2303.06349). x is the vector of the
context; without one, C x is left out. norm is layer normalization (Ba et al. 2016,
arXiv:1607.06450); its gain and shift are folded into W1 and b1. silu(x) = x / (1 + exp(-x)) = y + y
tanh(y) with y = x / 2.

The trainer's parallel form of the same equations is `sanderling_trainer.policy.model.network`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.tensors import Tensors

Vector = NDArray[np.float32]

EPSILON = 1e-5  # of the layer normalization


class UserModel:
    """The recurrence of one bundle: c channels, items of dimension d, `kinds` kinds of event.

    `decay` is what one event leaves of each channel, float32 [c].
    """

    def __init__(self, policy: Tensors, kinds: list[str]) -> None:
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in policy.items()}
        self._input = tensors["state.input"]
        self._kind = tensors["state.kind"]
        self.decay: Vector = tensors["state.decay"]
        self._gain = np.sqrt(1.0 - self.decay**2)

        # What does not depend on the state is multiplied once: gain and shift of the normalization,
        # and the half of silu(x) = y + y tanh(y), y = x / 2.
        self._w1 = tensors["output.w1"] * tensors["output.gain"]
        bias = tensors["output.b1"] + tensors["output.w1"] @ tensors["output.shift"]
        self._half_b1 = np.float32(0.5) * bias
        self._w2 = tensors["output.w2"]
        self._b2 = tensors["output.b2"]
        self._context = tensors["context.project"]
        self._kinds = {name: index for index, name in enumerate(kinds)}

    def initial_state(self) -> Vector:
        """Return the state [c] of a user without events."""
        return np.zeros(self.decay.size, np.float32)

    def step(self, state: Vector, item: Vector, kind: str) -> Vector:
        """Return the state [c] after an event with an item vector [d].

        An unknown kind counts as the first one.
        """
        return self.decay * state + self.input(item, kind)

    def input(self, item: Vector, kind: str) -> Vector:
        """Return what an event with an item vector [d] adds to the decayed state [c]."""
        gate = self._kind[self._kinds.get(kind, 0)]
        return self._gain * (gate * (self._input @ item))

    def user_vector(self, state: Vector, context: Vector | None = None) -> Vector:
        """Return the user vector [d] for a state [c] and the vector [t] of a context."""
        centred = state - np.add.reduce(state) / np.float32(state.size)
        spread = math.sqrt(float(centred.dot(centred)) / state.size + EPSILON)
        half = (self._w1 @ centred) * np.float32(0.5 / spread) + self._half_b1
        user = self._w2 @ (half + half * np.tanh(half)) + self._b2
        return user if context is None else user + self._context @ context
