"""An index of int8 rows, searched exactly for the k best by compiled kernels or by numpy.

The score of row i is `(dot_i * scale_i) * step + bias_i` in float64, where dot_i is the exact
integer product of the int8 row with the query rounded to 23 bits and a sign, and `step` undoes that
rounding. Integers make the result independent of the order of summation, so numpy and the compiled
kernels give the same scores bit for bit. Order: score descending, then row ascending.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock, local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.kernels import loader
from sanderling.kernels.layout import (
    BLOCK_ROWS,
    CHUNK_ROWS,
    GROUP_DIMS,
    LANES,
    MAX_DEFERRED,
    MAX_DIMENSIONS,
    MAX_VALUE,
    MIN_VALUE,
    SCRATCH_BEST_ROWS,
    SCRATCH_BEST_SCORES,
    SCRATCH_BOUNDS,
    SCRATCH_COARSE,
    SCRATCH_CODES,
    SCRATCH_DEFERRED_BOUNDS,
    SCRATCH_DEFERRED_ROWS,
    SCRATCH_EXCLUDED,
    SCRATCH_HITS,
    SCRATCH_MASK,
    SCRATCH_SIZE,
    SCRATCH_STATE,
    STATE_ELIGIBLE,
    STATE_MASKED,
    STATE_SIZE,
    TABLE_BIAS,
    TABLE_BITS,
    TABLE_BLOCK_COUNT,
    TABLE_BLOCKS,
    TABLE_D,
    TABLE_GROUPS,
    TABLE_N,
    TABLE_ROWS,
    TABLE_SCALE,
    TABLE_SIZE,
    TAIL_BIASES,
    TAIL_BYTES,
    bits_for,
    ceil_div,
    plane_bytes,
)
from sanderling.ranking.numpy_search import numpy_top
from sanderling.ranking.quantization import quantize_query
from sanderling.ranking.search_types import RowMask, Rows, Scores, SearchResult, address_of

SHORT_BYTES = 8_000_000  # of rows, which are scanned in less than a tenth of a millisecond
MIN_CAPACITY = 1024  # results for which a thread's memory has room at least
CACHE_LINE = 64


class Int8Index:
    """An index of rows int8 [n, d] with scales and biases float32 [n]; not copied; thread-safe.

    `source` chooses the kernels (`kernels.loader.chosen`), `bits` the planes that they scan: 4 or
    7, by size unless given. `kernels` are the chosen ones, or None where numpy searches.

    Raises `ValueError` for scales outside 1e-12 … 1e12 and for biases that are not finite or beyond
    1e12.
    """

    def __init__(
        self,
        rows: NDArray[np.int8],
        scale: NDArray[np.float32],
        bias: NDArray[np.float32],
        source: str | None = None,
        bits: int | None = None,
    ) -> None:
        self.rows: NDArray[np.int8] = np.ascontiguousarray(rows)
        self.scale: NDArray[np.float32] = np.ascontiguousarray(scale)
        self.bias: NDArray[np.float32] = np.ascontiguousarray(bias)
        self.max_scale = float(scale.max(initial=0.0))
        self.max_bias = float(np.abs(bias).max(initial=0.0))
        # Written so that NaN fails, too.
        is_bounded = self.max_scale <= MAX_VALUE and self.max_bias <= MAX_VALUE
        if not is_bounded or not float(scale.min(initial=1.0)) >= MIN_VALUE:
            raise ValueError(
                f"expected scales of {MIN_VALUE:g} to {MAX_VALUE:g}, and biases up to that"
            )
        fits_kernels = 0 < rows.shape[1] <= MAX_DIMENSIONS and len(rows) > 0
        self.kernels = loader.chosen(source) if fits_kernels else None
        self._bits = bits or bits_for(*rows.shape)
        self._thread = local()
        self._pack_lock = Lock()
        self._packed: _PackedTable | None = None

    def top(
        self,
        query: NDArray[np.float32],
        k: int,
        excluded: Rows | None = None,
        mask: RowMask | None = None,
    ) -> SearchResult:
        """Return the k >= 0 best rows for a query float32 [d].

        Rows that the mask hides or that are listed in `excluded`, int64 [e], are left out; listed
        rows that do not exist are ignored. Raises `ValueError` for a query of another shape, and
        for a mask of another number of rows.
        """
        k = min(k, len(self.rows))
        if query.shape != self.rows.shape[1:]:
            raise ValueError(
                f"expected a query of {self.rows.shape[1]} numbers, found shape {query.shape}"
            )
        if mask is not None and len(mask.hidden) != len(self.rows):
            raise ValueError(
                f"expected a mask of {len(self.rows)} rows, found one of {len(mask.hidden)}"
            )
        if excluded is not None:
            excluded = np.ascontiguousarray(excluded, np.int64)
        if self.kernels is None or k == 0:
            return numpy_top(self, query, k, excluded, mask)

        scan: _ThreadScan | None = getattr(self._thread, "scan", None)
        if scan is None or scan.capacity < k:
            is_short = self.rows.size <= SHORT_BYTES
            kernel = self.kernels.short_scan if is_short else self.kernels.scan
            scan = self._thread.scan = _ThreadScan(kernel, self._pack(self.kernels), k)
        return scan(query, k, excluded, mask)

    def score(self, query: NDArray[np.float32], row: int) -> float:
        """Return the score of one row for a query float32 [d], the same bits as `top` returns."""
        return float(self.scores(query, np.array([row]))[0])

    def scores(self, query: NDArray[np.float32], rows: Rows) -> Scores:
        """Return the scores float64 [e] of rows int64 [e], the same bits as `top` returns."""
        codes, step = quantize_query(query)
        dots = self.rows[rows].astype(np.float64) @ codes
        return dots * self.scale[rows].astype(np.float64) * step + self.bias[rows]

    def raise_biases(self, rows: Rows, by: NDArray[np.float32]) -> Callable[[], None]:
        """Add `by` float32 [m] to the biases of distinct rows int64 [m]; return what undoes it.

        Sums stay within 1e12. For an owner of the array of biases, while no other thread searches.
        """
        before = self.bias[rows]
        max_before = self.max_bias
        raised = before + by
        self.bias[rows] = raised
        self.max_bias = max(max_before, float(np.abs(raised).max(initial=0.0)))
        undo_packed = None
        if self.kernels is not None:
            undo_packed = self._pack(self.kernels).replace_biases(rows, raised)

        def undo() -> None:
            self.bias[rows] = before
            self.max_bias = max_before
            if undo_packed is not None:
                undo_packed()

        return undo

    def warm_up(self) -> None:
        """Compile and pack what the first search would otherwise wait for."""
        self.top(np.zeros(self.rows.shape[1], np.float32), 1)

    def _pack(self, kernels: loader.Kernels) -> _PackedTable:
        """Return the packed rows, which are made on the first call."""
        with self._pack_lock:
            if self._packed is None:
                self._packed = _PackedTable(self, self._bits, kernels.pack)
            return self._packed


class _PackedTable:
    """The rows of an index packed into blocks, and the array that describes them to kernels."""

    def __init__(self, index: Int8Index, bits: int, pack: loader.Kernel) -> None:
        self.n, self.d = index.rows.shape
        self.blocks = ceil_div(self.n, BLOCK_ROWS)
        self._planes = _aligned(self.blocks * (plane_bytes(self.d, bits) + TAIL_BYTES))
        self._index = index  # whose arrays must live as long as their addresses are used

        self._table = np.empty(TABLE_SIZE, np.int64)
        self._table[TABLE_BLOCKS] = address_of(self._planes)
        self._table[TABLE_BLOCK_COUNT] = self.blocks
        self._table[TABLE_GROUPS] = ceil_div(self.d, GROUP_DIMS)
        self._table[TABLE_ROWS] = address_of(index.rows)
        self._table[TABLE_N] = self.n
        self._table[TABLE_D] = self.d
        self._table[TABLE_SCALE] = address_of(index.scale)
        self._table[TABLE_BIAS] = address_of(index.bias)
        self._table[TABLE_BITS] = bits
        self.address = address_of(self._table)
        # All kernels share one signature; packing uses the first argument only.
        pack(self.address, 0, 0, 0, 0, 0)

        # Blocks in units of the biases, bfloat16.
        self._halves = self._planes.view(np.uint16)
        self._block_halves = len(self._halves) // max(self.blocks, 1)
        self._first_bias = self._block_halves - (TAIL_BYTES - TAIL_BIASES) // 2

    def replace_biases(self, rows: Rows, bias: NDArray[np.float32]) -> Callable[[], None]:
        """Replace the biases of rows int64 [m] in the blocks, rounded up to bfloat16 as by `pack`;
        return what undoes it."""
        bits = bias.view(np.uint32)
        # Cutting bits off makes a negative number larger already.
        carry = np.where(np.signbit(bias), np.uint32(0), np.uint32(0xFFFF))
        lanes = (rows // BLOCK_ROWS) * self._block_halves + rows % BLOCK_ROWS + self._first_bias
        before = self._halves[lanes]
        self._halves[lanes] = (bits + carry) >> np.uint32(16)

        def undo() -> None:
            self._halves[lanes] = before

        return undo


class _ThreadScan:
    """The memory in which one thread scans one table, reused from search to search."""

    def __init__(self, kernel: loader.Kernel, table: _PackedTable, k: int) -> None:
        d = table.d
        self.capacity = max(k, MIN_CAPACITY)
        self._kernel = kernel
        self._query = np.empty(d, np.float32)
        self._state = np.zeros(STATE_SIZE, np.int64)
        self._rows = np.empty(self.capacity, np.int64)
        self._scores = np.empty(self.capacity)

        memory: dict[int, NDArray[Any]] = {
            SCRATCH_BEST_ROWS: self._rows,
            SCRATCH_BEST_SCORES: self._scores,
            SCRATCH_DEFERRED_ROWS: np.empty(MAX_DEFERRED, np.int64),
            SCRATCH_DEFERRED_BOUNDS: np.empty(MAX_DEFERRED, np.float32),
            SCRATCH_CODES: np.empty(2 * ceil_div(d, LANES) * LANES, np.int16),
            SCRATCH_COARSE: np.empty(ceil_div(d, GROUP_DIMS) * GROUP_DIMS, np.int8),
            SCRATCH_EXCLUDED: np.empty(table.blocks, np.uint64),
            SCRATCH_BOUNDS: np.empty(CHUNK_ROWS, np.float32),
            SCRATCH_STATE: self._state,
            SCRATCH_HITS: np.empty(CHUNK_ROWS, np.int64),
        }
        self._scratch = np.zeros(SCRATCH_SIZE, np.int64)
        for position, array in memory.items():
            self._scratch[position] = address_of(array)
        self._owned = table, memory  # what must live as long as its addresses are used
        self._table_address = table.address
        self._query_address = address_of(self._query)
        self._scratch_address = address_of(self._scratch)

    def __call__(
        self, query: NDArray[np.float32], k: int, excluded: Rows | None, mask: RowMask | None
    ) -> SearchResult:
        """Return the k <= `capacity` best rows for a query float32 [d], as `Int8Index.top` does.

        The query is copied to the address that the kernel reads, and the result out of memory that
        the next search overwrites.
        """
        self._query[:] = query
        if mask is None:
            self._scratch[SCRATCH_MASK] = 0
            self._state[STATE_MASKED] = 0
        else:
            self._scratch[SCRATCH_MASK] = mask.address
            self._state[STATE_MASKED] = mask.count
        excluded_address = 0
        excluded_count = 0
        if excluded is not None and excluded.size:
            excluded_address = address_of(excluded)
            excluded_count = excluded.size
        count = self._kernel(
            self._table_address,
            self._query_address,
            excluded_address,
            excluded_count,
            k,
            self._scratch_address,
        )
        return SearchResult(
            self._rows[:count].copy(),
            self._scores[:count].copy(),
            int(self._state[STATE_ELIGIBLE]),
        )


def _aligned(size: int) -> NDArray[np.uint8]:
    """Return `size` bytes that start on a cache line."""
    padded = np.empty(size + CACHE_LINE - 1, np.uint8)
    start = -address_of(padded) % CACHE_LINE
    return padded[start : start + size]
