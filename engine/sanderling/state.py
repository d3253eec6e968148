"""Behaviour -> user vector. One event costs O(1) time and memory: a diagonal linear recurrence.

With v the vector of the event's item, κ the gate of its kind, Λ = diag(decay):

    h' = Λ h + sqrt(1 - Λ²) (κ ⊙ W v)              (linear recurrent unit: Orvieto et al. 2023, arXiv:2303.06349)
    u  = W2 silu(W1 norm(h) + b1) + b2 + C x       (x the context vector, absent context adds nothing)

Refuses to know users, ids and storage. The lab's parallel form of the same equations is
`sanderling_trainer.policy.network`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.contract.tensors import Tensors

Vector = NDArray[np.float32]


class StateModel:
    """The recurrence of one bundle: c channels, items of dimension d, `kinds` kinds of event."""

    def __init__(self, policy: Tensors, kinds: list[str]) -> None:
        tensors = {name: np.ascontiguousarray(tensor) for name, tensor in policy.items()}
        self._input, self._kind, self._decay = tensors["state.input"], tensors["state.kind"], tensors["state.decay"]
        self._gain = np.sqrt(1.0 - self._decay**2)
        self._norm = tensors["output.gain"], tensors["output.shift"]
        self._w1, self._b1 = tensors["output.w1"], tensors["output.b1"]
        self._w2, self._b2 = tensors["output.w2"], tensors["output.b2"]
        self._context = tensors["context.project"]
        self._kinds = {name: index for index, name in enumerate(kinds)}

    def start(self) -> Vector:
        """Return the state [c] of a user of whom nothing is known."""
        return np.zeros(self._decay.size, np.float32)

    def step(self, state: Vector, item: Vector, kind: str) -> Vector:
        """Return the state [c] after an event with the item vector [d]; unknown kinds count as the first kind."""
        gate = self._kind[self._kinds.get(kind, 0)]
        return self._decay * state + self._gain * (gate * (self._input @ item))

    def user(self, state: Vector, context: Vector | None = None) -> Vector:
        """Return the user vector [d] that is multiplied with the items' vectors."""
        gain, shift = self._norm
        hidden = self._w1 @ (_normalise(state) * gain + shift) + self._b1
        user = self._w2 @ _silu(hidden) + self._b2
        return user if context is None else user + self._context @ context


def _normalise(x: Vector) -> Vector:
    """Layer normalisation without its affine part (Ba et al. 2016, arXiv:1607.06450), epsilon 1e-5."""
    centred = x - np.add.reduce(x) / np.float32(x.size)
    return centred / np.sqrt(centred.dot(centred) / np.float32(x.size) + np.float32(1e-5))


def _silu(x: NDArray[Any]) -> NDArray[Any]:
    return x * 0.5 * (1.0 + np.tanh(0.5 * x))
