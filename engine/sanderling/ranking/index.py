"""Exact top-k over int8 rows: one table of items, and the two ways to search it.

The score of row i is `(dot_i * scale_i) * step + bias_i` in float64, where dot_i is the exact integer product of the
int8 row with the query rounded to 23 bits and a sign, and `step` undoes that rounding. Integers make the result
independent of the order of summation, so numpy and the compiled kernels give the same scores bit for bit. Order: score
descending, then row ascending. Refuses to know what items are.
"""

from __future__ import annotations

from threading import Lock, local
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sanderling.kernels import loader
from sanderling.kernels.layout import (
    CHUNK,
    GROUP,
    LANES,
    LARGEST_VALUE,
    MOST_DIMENSIONS,
    ROWS,
    SMALLEST_VALUE,
    TAIL,
    WAITING,
    bits_for,
    plane_bytes,
)
from sanderling.ranking.numpy_search import numpy_top
from sanderling.ranking.search_types import RowMask, Rows, SearchResult, _at

SHORT_BYTES = 8_000_000  # of rows, which are scanned in less than a tenth of a millisecond


class Int8Index:
    """Rows int8 [n, d] with scales and biases float32 [n], not copied; searched by many threads at once.

    `source` chooses the kernels (`kernels.library`), `bits` the planes that they scan: 4 or 7, by size unless given.

    Raises `ValueError` for scales outside 1e-12 … 1e12 and for biases that are not finite or beyond 1e12.
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
        self.largest = float(scale.max(initial=0.0)), float(np.abs(bias).max(initial=0.0))
        sound = self.largest[0] <= LARGEST_VALUE and self.largest[1] <= LARGEST_VALUE
        if not sound or not float(scale.min(initial=1.0)) >= SMALLEST_VALUE:
            raise ValueError(
                f"expected scales of {SMALLEST_VALUE:g} to {LARGEST_VALUE:g}, and biases up to that"
            )
        fits = 0 < rows.shape[1] <= MOST_DIMENSIONS and len(rows) > 0
        self._kernels = loader.chosen(source) if fits else None
        self._bits = bits or bits_for(*rows.shape)
        self._own, self._packing = local(), Lock()
        self._packed: tuple[NDArray[np.int64], NDArray[np.uint8]] | None = None

    def top(
        self,
        query: NDArray[np.float32],
        k: int,
        excluded: Rows | None = None,
        hidden: RowMask | None = None,
    ) -> SearchResult:
        """Return the k >= 0 best rows for a query float32 [d], neither hidden nor among the excluded rows int64 [e].

        Excluded rows that the table does not have are ignored. Raises `ValueError` for a query of another shape, and
        where `hidden` speaks of another number of rows.
        """
        k = min(k, len(self.rows))
        if query.shape != self.rows.shape[1:]:
            raise ValueError(
                f"expected a query of {self.rows.shape[1]} numbers, found shape {query.shape}"
            )
        if hidden is not None and len(hidden.rows) != len(self.rows):
            raise ValueError(
                f"expected {len(self.rows)} rows hidden or not, found {len(hidden.rows)}"
            )
        if excluded is not None:
            excluded = np.ascontiguousarray(excluded, np.int64)
        if self._kernels is None or k == 0:
            return numpy_top(self, query, k, excluded, hidden)
        scan: _Scan | None = getattr(self._own, "scan", None)
        if scan is None or scan.capacity < k:
            short = self.rows.size <= SHORT_BYTES
            kernel = self._kernels.short_scan if short else self._kernels.scan
            scan = self._own.scan = _Scan(self, kernel, self._given(), k)
        return scan(query, k, excluded, hidden)

    def warm_up(self) -> None:
        """Compile and pack what the first search would otherwise wait for."""
        self.top(np.zeros(self.rows.shape[1], np.float32), 1)

    def _given(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """What the kernels are told of the table, and its blocks, into which the rows are packed on the first call."""
        with self._packing:
            if self._packed is None:
                n, d = self.rows.shape
                count = -(-n // ROWS)
                blocks = _aligned(count * (plane_bytes(d, self._bits) + TAIL))
                arrays = _at(self.rows), n, d, _at(self.scale), _at(self.bias)
                given = np.array(
                    [_at(blocks), count, -(-d // GROUP), *arrays, self._bits], np.int64
                )
                assert self._kernels is not None
                self._kernels.pack(_at(given), 0, 0, 0, 0, 0)
                self._packed = given, blocks
            return self._packed


class _Scan:
    """The memory in which one thread scans one table, and its addresses."""

    def __init__(
        self,
        table: Int8Index,
        scan: loader.Kernel,
        packed: tuple[NDArray[np.int64], NDArray[np.uint8]],
        k: int,
    ) -> None:
        n, d = table.rows.shape
        count, self.capacity = -(-n // ROWS), max(k, 1024)
        self._scan = scan
        self._query, self._state = np.empty(d, np.float32), np.zeros(8, np.int64)
        self._rows, self._scores = np.empty(self.capacity, np.int64), np.empty(self.capacity)
        work: list[NDArray[Any]] = [
            self._rows,
            self._scores,
            np.empty(WAITING, np.int64),
            np.empty(WAITING, np.float32),
            np.empty(2 * -(-d // LANES) * LANES, np.int16),
            np.empty(-(-d // GROUP) * GROUP, np.int8),
            np.empty(count, np.uint64),
            np.empty(CHUNK, np.float32),
            self._state,
            np.empty(CHUNK, np.int64),
        ]
        self._places = np.array([*map(_at, work), 0], np.int64)
        self._kept = packed, work
        self._table_at, self._work_at, self._query_at = (
            _at(packed[0]),
            _at(self._places),
            _at(self._query),
        )

    def __call__(
        self, query: NDArray[np.float32], k: int, excluded: Rows | None, hidden: RowMask | None
    ) -> SearchResult:
        self._query[:] = query
        self._places[-1], self._state[3] = (0, 0) if hidden is None else (hidden.at, hidden.count)
        barred = (0, 0) if excluded is None or not excluded.size else (_at(excluded), excluded.size)
        count = self._scan(self._table_at, self._query_at, *barred, k, self._work_at)
        return SearchResult(
            self._rows[:count].copy(), self._scores[:count].copy(), int(self._state[2])
        )


def _aligned(size: int) -> NDArray[np.uint8]:
    whole = np.empty(size + 63, np.uint8)
    start = -_at(whole) % 64
    return whole[start : start + size]
