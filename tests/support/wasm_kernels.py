"""The kernels as WebAssembly, run by wasmtime, which lays memory out as the page does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.kernels.layout import (
    CHUNK_ROWS,
    GROUP_DIMS,
    LANES,
    MAX_DEFERRED,
    SCRATCH_SIZE,
    STATE_ELIGIBLE,
    STATE_MASKED,
    STATE_SIZE,
    TAIL_BYTES,
    ceil_div,
    plane_bytes,
)
from sanderling.ranking.numpy_user_model import user_weights
from sanderling.ranking.search_types import RowMask, SearchResult
from sanderling.ranking.user_model import filled_up

PAGE = 65536


class WasmKernels:
    """One instance of the module, and a bump allocator of its memory."""

    def __init__(self, path: Path) -> None:
        import wasmtime

        self._store = wasmtime.Store()
        self.module = wasmtime.Module.from_file(self._store.engine, str(path))
        self._exports = wasmtime.Instance(self._store, self.module, []).exports(self._store)
        self._memory = self._exports["memory"]
        self._free = self._exports["__heap_base"].value(self._store)

    def call(self, name: str, *arguments: int) -> int:
        """Return what an entry point returns; missing arguments are 0."""
        return self._exports[name](self._store, *arguments, *[0] * (6 - len(arguments)))

    def uniforms(self, decision: str, blocks: int) -> list[float]:
        """Return two doubles for each block, for an id of 32 hex digits."""
        words = np.frombuffer(bytes.fromhex(decision), ">i4").tolist()
        out = self.room(16 * blocks)
        self.call("sanderling_uniforms", *words, blocks, out)
        return self.get(out, np.float64, 2 * blocks).tolist()

    def room(self, size: int) -> int:
        """Return the address of so many bytes, on a cache line."""
        address = ceil_div(self._free, 64) * 64
        self._free = address + size
        missing = self._free - self._memory.data_len(self._store)
        if missing > 0:
            self._memory.grow(self._store, ceil_div(missing, PAGE))
        return address

    def put(self, array: NDArray[Any], address: int | None = None) -> int:
        """Return the address of a copy of an array."""
        place = self.room(array.nbytes) if address is None else address
        self._memory.write(self._store, array.tobytes(), place)
        return place

    def get(self, address: int, kind: Any, count: int) -> NDArray[Any]:
        """Return a copy of an array at an address."""
        size = np.dtype(kind).itemsize * count
        return np.frombuffer(self._memory.read(self._store, address, address + size), kind)


class WasmUserModel:
    """What `UserModel` is, in WebAssembly; kinds by their index."""

    def __init__(self, kernels: WasmKernels, policy: Any) -> None:
        self._kernels = kernels
        weights = user_weights(policy)
        self._d, self._channels = weights.input.shape
        width = ceil_div(max(self._d, self._channels, weights.b1.size), LANES) * LANES
        sizes = [self._channels, self._d, weights.b1.size, len(weights.context), width]
        arrays = [filled_up(weights.input), weights.kinds, weights.decay, weights.gain]
        arrays += [filled_up(weights.w1), weights.b1, filled_up(weights.w2), weights.b2]
        arrays += [filled_up(weights.context)]
        table = [*sizes, *(kernels.put(array) for array in arrays)]
        self._model = kernels.put(np.array(table, np.int64))
        self._out = kernels.room(4 * width)
        self._scratch = kernels.room(12 * width)

    def step(self, state: Any, item: Any, kind: int) -> NDArray[np.float32]:
        """Return what `UserModel.step` returns, or without a state what `UserModel.input` does."""
        given = 0 if state is None else self._kernels.put(state)
        addresses = (self._model, given, self._kernels.put(item), kind, self._out, self._scratch)
        self._kernels.call("sanderling_step", *addresses)
        return self._kernels.get(self._out, np.float32, self._channels)

    def user_vector(self, state: Any, context: Any) -> NDArray[np.float32]:
        """Return what `UserModel.user_vector` returns."""
        given = 0 if context is None else self._kernels.put(context)
        addresses = (self._model, self._kernels.put(state), given, self._out, self._scratch)
        self._kernels.call("sanderling_user_vector", *addresses)
        return self._kernels.get(self._out, np.float32, self._d)


class WasmIndex:
    """What `Int8Index` is, in WebAssembly."""

    def __init__(
        self, kernels: WasmKernels, rows: Any, scale: Any, bias: Any, bits: int, capacity: int
    ) -> None:
        self._kernels = kernels
        n, d = rows.shape
        self.blocks = ceil_div(n, 64)
        groups = ceil_div(d, GROUP_DIMS)
        planes = kernels.room(self.blocks * (plane_bytes(d, bits) + TAIL_BYTES))
        addresses = [kernels.put(array) for array in (rows, scale, bias)]
        table = [planes, self.blocks, groups, addresses[0], n, d, *addresses[1:], bits]
        self._table = kernels.put(np.array(table, np.int64))
        assert kernels.call("sanderling_pack", self._table) == self.blocks

        self._query = kernels.room(4 * d)
        sizes = [8 * capacity, 8 * capacity, 8 * MAX_DEFERRED, 4 * MAX_DEFERRED]
        sizes += [4 * ceil_div(d, LANES) * LANES, 24 * groups, 8 * self.blocks, 4 * CHUNK_ROWS]
        sizes += [8 * STATE_SIZE, 8 * CHUNK_ROWS, 8 * self.blocks]
        assert len(sizes) == SCRATCH_SIZE
        self._parts = [kernels.room(size) for size in sizes]
        self._scratch = kernels.room(8 * SCRATCH_SIZE)

    def top(
        self, query: Any, k: int, excluded: Any = None, mask: RowMask | None = None
    ) -> SearchResult:
        """Return what `Int8Index.top` returns."""
        kernels = self._kernels
        kernels.put(query, self._query)
        parts = list(self._parts)
        if mask is None:
            parts[-1] = 0
        else:
            words = np.zeros(8 * self.blocks, np.uint8)
            bits = np.packbits(mask.hidden, bitorder="little")
            words[: len(bits)] = bits
            kernels.put(words, parts[-1])
        kernels.put(np.array(parts, np.int64), self._scratch)
        state = np.zeros(STATE_SIZE, np.int64)
        state[STATE_MASKED] = 0 if mask is None else mask.count
        kernels.put(state, parts[8])
        listed = np.empty(0, np.int64) if excluded is None else excluded
        count = kernels.call(
            "sanderling_scan",
            self._table,
            self._query,
            kernels.put(listed),
            len(listed),
            k,
            self._scratch,
        )
        return SearchResult(
            kernels.get(parts[0], np.int64, count),
            kernels.get(parts[1], np.float64, count),
            int(kernels.get(parts[8], np.int64, STATE_SIZE)[STATE_ELIGIBLE]),
        )
