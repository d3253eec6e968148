"""Behaviour -> user vector. One event costs O(1) time and memory: a diagonal linear recurrence.

With v the vector of the event's item, κ the gate of its kind, Λ = diag(decay):

    h' = Λ h + sqrt(1 - Λ²) (κ ⊙ W v)
    u  = W2 silu(W1 norm(h) + b1) + b2 + C x

The first is a linear recurrent unit (Orvieto et al. 2023, arXiv:2303.06349). x is the vector of the
context; without one, C x is left out. norm is layer normalization (Ba et al. 2016,
arXiv:1607.06450); its gain and shift are folded into W1 and b1. silu(x) = x / (1 + exp(-x)).

Every machine computes the same bits: in one order of arithmetic (docs/MATH.md, "Equal bits"), by
`sanderling.kernels.user_model` or by numpy. The trainer's parallel form of the equations is
`sanderling_trainer.policy.model.network`.
"""

from __future__ import annotations

from threading import local

import numpy as np
from numpy.typing import NDArray

from sanderling.bundle.tensors import Tensors
from sanderling.kernels import loader
from sanderling.kernels.layout import (
    LANES,
    MODEL_B1,
    MODEL_B2,
    MODEL_CHANNELS,
    MODEL_CONTEXT,
    MODEL_DECAY,
    MODEL_GAIN,
    MODEL_HIDDEN,
    MODEL_INPUT,
    MODEL_ITEMS,
    MODEL_KINDS,
    MODEL_SIZE,
    MODEL_TEXT,
    MODEL_W1,
    MODEL_W2,
    MODEL_WIDTH,
    ceil_div,
)
from sanderling.ranking.numpy_user_model import (
    UserWeights,
    Vector,
    numpy_input,
    numpy_user_vector,
    user_weights,
)
from sanderling.ranking.search_types import address_of


class UserModel:
    """The recurrence of one bundle: c channels, items of dimension d, `kinds` kinds of event.

    `decay` is what one event leaves of each channel, float32 [c]. `source` chooses the kernels
    (`kernels.loader.chosen`). Thread-safe.
    """

    def __init__(self, policy: Tensors, kinds: list[str], source: str | None = None) -> None:
        self._weights = user_weights(policy)
        self.decay: Vector = self._weights.decay
        self._kinds = {name: index for index, name in enumerate(kinds)}
        kernels = loader.chosen(source)
        self._table = None if kernels is None else _ModelTable(self._weights, kernels)
        self._thread = local()

    def initial_state(self) -> Vector:
        """Return the state [c] of a user without events."""
        return np.zeros(self.decay.size, np.float32)

    def step(self, state: Vector, item: Vector, kind: str) -> Vector:
        """Return the state [c] after an event with an item vector [d].

        An unknown kind counts as the first one.
        """
        if self._table is None:
            return self.decay * state + self.input(item, kind)
        return self._memory(self._table).step(state, item, self._kinds.get(kind, 0))

    def input(self, item: Vector, kind: str) -> Vector:
        """Return what an event with an item vector [d] adds to the decayed state [c]."""
        if self._table is None:
            return numpy_input(self._weights, item, self._kinds.get(kind, 0))
        return self._memory(self._table).step(None, item, self._kinds.get(kind, 0))

    def user_vector(self, state: Vector, context: Vector | None = None) -> Vector:
        """Return the user vector [d] for a state [c] and the vector [t + F] of a context."""
        if self._table is None:
            return numpy_user_vector(self._weights, state, context)
        return self._memory(self._table).user_vector(state, context)

    def _memory(self, table: _ModelTable) -> _ThreadMemory:
        """Return the memory in which this thread computes."""
        memory: _ThreadMemory | None = getattr(self._thread, "memory", None)
        if memory is None:
            memory = self._thread.memory = _ThreadMemory(table)
        return memory


class _ModelTable:
    """The weights as kernels read them, and the array that describes them (`layout`, MODEL_*)."""

    def __init__(self, weights: UserWeights, kernels: loader.Kernels) -> None:
        self.kernels = kernels
        self.d, self.channels = weights.input.shape
        self.text = len(weights.context)
        hidden = weights.b1.size
        self.width = ceil_div(max(self.d, self.channels, hidden), LANES) * LANES
        arrays = {
            MODEL_INPUT: filled_up(weights.input),
            MODEL_KINDS: weights.kinds,
            MODEL_DECAY: weights.decay,
            MODEL_GAIN: weights.gain,
            MODEL_W1: filled_up(weights.w1),
            MODEL_B1: weights.b1,
            MODEL_W2: filled_up(weights.w2),
            MODEL_B2: weights.b2,
            MODEL_CONTEXT: filled_up(weights.context),
        }
        self._arrays = arrays  # they must live as long as their addresses are used
        self._table = np.zeros(MODEL_SIZE, np.int64)
        self._table[MODEL_CHANNELS] = self.channels
        self._table[MODEL_ITEMS] = self.d
        self._table[MODEL_HIDDEN] = hidden
        self._table[MODEL_TEXT] = self.text
        self._table[MODEL_WIDTH] = self.width
        for position, array in arrays.items():
            self._table[position] = address_of(array)
        self.address = address_of(self._table)


class _ThreadMemory:
    """The memory in which one thread computes states and user vectors.

    Arguments are copied to where the kernels read them, and results out of memory that the next
    call overwrites.
    """

    def __init__(self, table: _ModelTable) -> None:
        self._table = table
        self._model = table.address
        self._step = table.kernels.step
        self._user_vector = table.kernels.user_vector
        self._state = np.zeros(table.channels, np.float32)
        self._next = np.zeros(table.channels, np.float32)
        self._item = np.zeros(table.d, np.float32)
        self._user = np.zeros(table.d, np.float32)
        self._context = np.zeros(table.text, np.float32)
        self._sums = np.zeros(12 * table.width, np.uint8)
        self._state_address = address_of(self._state)
        self._next_address = address_of(self._next)
        self._item_address = address_of(self._item)
        self._user_address = address_of(self._user)
        self._context_address = address_of(self._context)
        self._scratch = address_of(self._sums)

    def step(self, state: Vector | None, item: Vector, kind: int) -> Vector:
        """Return the state after an event, or without a state what the event adds."""
        address = 0
        if state is not None:
            self._state[:] = state
            address = self._state_address
        self._item[:] = item
        self._step(
            self._model, address, self._item_address, kind, self._next_address, self._scratch
        )
        return self._next.copy()

    def user_vector(self, state: Vector, context: Vector | None) -> Vector:
        """Return the user vector of a state and a context."""
        address = 0
        if context is not None:
            self._context[:] = context
            address = self._context_address
        self._state[:] = state
        self._user_vector(
            self._model, self._state_address, address, self._user_address, self._scratch, 0
        )
        return self._user.copy()


def filled_up(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return weights [i, o] with rows filled up with zeros to whole vectors."""
    inputs, outputs = weights.shape
    whole = np.zeros((inputs, ceil_div(outputs, LANES) * LANES), np.float32)
    whole[:, :outputs] = weights
    return whole
