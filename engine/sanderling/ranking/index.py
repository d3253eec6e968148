"""Exact top-k over int8 rows: one table of items, and the two ways to search it.

The score of row i is `(dot_i * scale_i) * step + bias_i` in float64, where dot_i is the exact integer product of the
int8 row with the query rounded to 23 bits and a sign, and `step` undoes that rounding. Integers make the result
independent of the order of summation, so numpy and the compiled kernels give the same scores bit for bit. Order: score
descending, then row ascending. Refuses to know what items are.
"""

from __future__ import annotations

from threading import Lock, local
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sanderling.kernels import loader
from sanderling.kernels.layout import (
    CHUNK,
    GROUP,
    LANES,
    LARGEST,
    LARGEST_VALUE,
    MOST_DIMENSIONS,
    ROWS,
    SMALLEST_VALUE,
    TAIL,
    WAITING,
    bits_for,
    plane_bytes,
)

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]

SHORT_BYTES = 8_000_000  # of rows, which are scanned in less than a tenth of a millisecond
_BLOCK = 4096


class Found(NamedTuple):
    """The best rows int64 [<= k] and their scores float64, best first, and how many rows were eligible."""

    rows: Rows
    scores: Scores
    eligible: int


def quantize_query(query: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Round a query [d] to whole numbers of at most 23 bits and a sign, and the step that undoes it.

    A query without a direction, not finite or outside 1e-12 … 1e12, becomes zeros, with step 0.
    """
    peak = float(np.abs(query).max(initial=0.0))
    if not SMALLEST_VALUE <= peak <= LARGEST_VALUE:
        return np.zeros(query.size), 0.0
    return np.rint(query.astype(np.float64) * (LARGEST / peak)), peak / LARGEST


def quantize_rows(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round vectors [n, d] to int8 rows and a scale for each, so that `rows * scale[:, None]` is nearest to them.

    Vectors without a number beyond 1e-10 count as zero.
    """
    peak = np.abs(vectors).max(axis=1, initial=0.0)
    scale = np.where(peak > 128 * SMALLEST_VALUE, peak / 127.0, 1.0).astype(np.float32)
    return np.rint(vectors / scale[:, None]).clip(-127, 127).astype(np.int8), scale


class Hidden:
    """Rows of a table that are not to be found, one bit each: made once, and used by many searches."""

    def __init__(self, hidden: NDArray[np.bool_]) -> None:
        self.rows, self.count = hidden, int(np.count_nonzero(hidden))
        words = np.zeros(-(-len(hidden) // ROWS) * ROWS // 8, np.uint8)
        bits = np.packbits(hidden, bitorder="little")
        words[: len(bits)] = bits
        self._words, self.at = words, _at(words)


class Table:
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
            raise ValueError(f"expected scales of {SMALLEST_VALUE:g} to {LARGEST_VALUE:g}, and biases up to that")
        fits = 0 < rows.shape[1] <= MOST_DIMENSIONS and len(rows) > 0
        self._kernels = loader.chosen(source) if fits else None
        self._bits = bits or bits_for(*rows.shape)
        self._own, self._packing = local(), Lock()
        self._packed: tuple[NDArray[np.int64], NDArray[np.uint8]] | None = None

    def top(
        self, query: NDArray[np.float32], k: int, excluded: Rows | None = None, hidden: Hidden | None = None
    ) -> Found:
        """Return the k >= 0 best rows for a query float32 [d], neither hidden nor among the excluded rows int64 [e].

        Excluded rows that the table does not have are ignored. Raises `ValueError` for a query of another shape, and
        where `hidden` speaks of another number of rows.
        """
        k = min(k, len(self.rows))
        if query.shape != self.rows.shape[1:]:
            raise ValueError(f"expected a query of {self.rows.shape[1]} numbers, found shape {query.shape}")
        if hidden is not None and len(hidden.rows) != len(self.rows):
            raise ValueError(f"expected {len(self.rows)} rows hidden or not, found {len(hidden.rows)}")
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
                given = np.array([_at(blocks), count, -(-d // GROUP), *arrays, self._bits], np.int64)
                assert self._kernels is not None
                self._kernels.pack(_at(given), 0, 0, 0, 0, 0)
                self._packed = given, blocks
            return self._packed


class _Scan:
    """The memory in which one thread scans one table, and its addresses."""

    def __init__(
        self, table: Table, scan: loader.Kernel, packed: tuple[NDArray[np.int64], NDArray[np.uint8]], k: int
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
        self._table_at, self._work_at, self._query_at = _at(packed[0]), _at(self._places), _at(self._query)

    def __call__(self, query: NDArray[np.float32], k: int, excluded: Rows | None, hidden: Hidden | None) -> Found:
        self._query[:] = query
        self._places[-1], self._state[3] = (0, 0) if hidden is None else (hidden.at, hidden.count)
        barred = (0, 0) if excluded is None or not excluded.size else (_at(excluded), excluded.size)
        count = self._scan(self._table_at, self._query_at, *barred, k, self._work_at)
        return Found(self._rows[:count].copy(), self._scores[:count].copy(), int(self._state[2]))


def _at(array: NDArray[Any]) -> int:
    return array.ctypes.data


def _aligned(size: int) -> NDArray[np.uint8]:
    whole = np.empty(size + 63, np.uint8)
    start = -_at(whole) % 64
    return whole[start : start + size]


def numpy_top(table: Table, query: NDArray[np.float32], k: int, excluded: Rows | None, hidden: Hidden | None) -> Found:
    """Search by numpy alone: float32 products of all rows, then doubles for those that may be among the best."""
    codes, step = quantize_query(query)
    approximate = np.empty(len(table.rows), np.float32)
    rounded = (codes * step).astype(np.float32)
    room = np.empty((min(_BLOCK, len(table.rows)), len(rounded)), np.float32)
    for start in range(0, len(table.rows), _BLOCK):
        rows = table.rows[start : start + _BLOCK]
        block = room[: len(rows)]
        block[:] = rows
        np.dot(block, rounded, out=approximate[start : start + _BLOCK])
    approximate *= table.scale
    approximate += table.bias
    if excluded is not None:
        approximate[excluded[(excluded >= 0) & (excluded < len(approximate))]] = -np.inf
    if hidden is not None:
        approximate[hidden.rows] = -np.inf
    eligible = int(np.count_nonzero(approximate > -np.inf))
    k = min(k, eligible)
    if k == 0:
        return Found(np.empty(0, np.int64), np.empty(0), eligible)
    line = float(np.partition(approximate, len(approximate) - k)[len(approximate) - k])
    near = np.flatnonzero(approximate >= line - 2.0 * _error(table, rounded, line))
    near = near[approximate[near] > -np.inf]
    scores = table.rows[near].astype(np.float64) @ codes * table.scale[near] * step + table.bias[near]
    order = np.lexsort((near, -scores))[:k]
    return Found(near[order], scores[order], eligible)


def _error(table: Table, query: NDArray[np.float32], line: float) -> float:
    """Return a bound of what float32 can lose of any score: each of d + 3 roundings loses 2^-24 of the magnitude."""
    magnitude = 128.0 * float(np.abs(query).sum(dtype=np.float64)) * table.largest[0] + table.largest[1]
    return (query.size + 4) * 2.0**-23 * magnitude + abs(line) * 2.0**-20
