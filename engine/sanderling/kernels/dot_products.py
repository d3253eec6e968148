"""Dot products of packed rows with a query, written once for each instruction set.

`dot4`, `dot7` and `row_dot` are those of the processor that is compiled for (`cpu.kind`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sanderling.kernels import cpu
from sanderling.kernels.simd import (
    BYTES,
    I8,
    I16,
    I32,
    I64,
    INTS,
    Lanes,
    constant,
    declare,
    emit_load,
    emit_splat,
    int32x16,
    shuffle_mask,
    take_lanes,
)
from sanderling.kernels.stand_ins import PAIRS, SDOT, add_neighbours

_SHORTS = ir.VectorType(I16, 32)


class Instructions(NamedTuple):
    """How one instruction set multiplies seven-bit codes, four-bit codes and int8 rows."""

    dot7: Callable[..., Any]
    """Adds four products of bytes to each of sixteen sums, by the query at an address."""

    sums4: ir.VectorType
    """The vector of partial sums for codes of four bits: several for each row."""

    max_dot4: int
    """How often `dot4` may add to the partial sums before they could overflow."""

    dot4: Callable[..., Any]
    """Adds eight products of four-bit codes to the partial sums of each row, likewise."""

    fold: Callable[..., Any]
    """Returns the sum int32x16 of each row from its partial sums."""

    pairs: Callable[..., Any]
    """Returns the sums int32x16 of two products each, of int16x32 and int16x32."""


def row_dot_of(kind: Instructions) -> Any:
    """Return the intrinsic `row_dot(sums, row, codes)`: it adds 32 products of int8 and int16."""

    @intrinsic
    def row_dot(typing: Any, before: Any, row: Any, codes: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            sums, row_address, codes_address = values
            row_values = emit_load(builder, row_address, ir.VectorType(I8, 32), 1)
            query = emit_load(builder, codes_address, _SHORTS, 2)
            return builder.add(sums, kind.pairs(builder, builder.sext(row_values, _SHORTS), query))

        return int32x16(int32x16, types.int64, types.int64), emit

    return row_dot


def dots_of(kind: Instructions) -> tuple[Any, Any, Any, Any]:
    """Return the intrinsics `dot7`, `zero_sums`, `dot4` and `fold_sums` of an instruction set.

    `dot7(sums, address, query)` takes 16 rows by 4 dimensions in bytes of 0 to 127; `dot4(sums,
    address, query)` takes 16 rows by 8 dimensions in half bytes, dimensions 0 to 3 in the low
    halves and 4 to 7 in the high ones. Both read 64 bytes at the address, four for each row, and
    the query's codes at `query`, as `query_words` left them.
    """
    vector = kind.sums4
    sums = Lanes(f"sums of {vector}", vector)

    @intrinsic
    def zero_sums(typing: Any) -> Any:
        return sums(), lambda context, builder, signature, values: constant(vector, 0)

    @intrinsic
    def dot4(typing: Any, before: Any, address: Any, query: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            packed = emit_load(builder, values[1], BYTES, 64)
            return kind.dot4(builder, values[0], packed, values[2])

        return sums(sums, types.int64, types.int64), emit

    @intrinsic
    def dot7(typing: Any, before: Any, address: Any, query: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            codes7 = emit_load(builder, values[1], BYTES, 64)
            return kind.dot7(builder, values[0], codes7, values[2])

        return int32x16(int32x16, types.int64, types.int64), emit

    @intrinsic
    def fold_sums(typing: Any, whole: Any) -> Any:
        return int32x16(sums), lambda context, builder, signature, values: kind.fold(
            builder, values[0]
        )

    return dot7, zero_sums, dot4, fold_sums


def _codes(builder: Any, address: Any) -> Any:
    """Return four int8 of the query, repeated for each of sixteen rows."""
    return builder.bitcast(emit_splat(builder, emit_load(builder, address, I32, 4), INTS), BYTES)


def _code_pair(builder: Any, address: Any) -> list[Any]:
    """Return the codes for the low halves of bytes, and those for the high ones."""
    return [_codes(builder, address), _codes(builder, builder.add(address, I64(4)))]


def _nibbles(builder: Any, packed: Any) -> tuple[Any, Any]:
    """Return the low and the high halves of bytes."""
    return builder.and_(packed, constant(BYTES, 15)), builder.lshr(packed, constant(BYTES, 4))


def _unfolded(builder: Any, sums: Any) -> Any:
    return sums


def _vnni_pairs(builder: Any, some: Any, others: Any) -> Any:
    return builder.call(
        declare(builder, "llvm.x86.avx512.pmaddw.d.512", INTS, [_SHORTS, _SHORTS]), [some, others]
    )


def _vnni_dot7(builder: Any, sums: Any, some: Any, query: Any) -> Any:
    return _vnni_dot(builder, sums, some, _codes(builder, query))


def _vnni_dot(builder: Any, sums: Any, some: Any, codes: Any) -> Any:
    """AVX-512 VNNI: one instruction."""
    dot = declare(builder, "llvm.x86.avx512.vpdpbusd.512", INTS, [INTS, BYTES, BYTES])
    return builder.call(dot, [sums, some, codes])


def _vnni_dot4(builder: Any, sums: Any, packed: Any, query: Any) -> Any:
    """The high halves are not shifted down: their sums are sixteen times too large until folded.

    On Zen 4 a shift would take the slot of a product.
    """
    parts = [
        _vnni_dot(
            builder,
            take_lanes(builder, sums, start, 16),
            builder.and_(packed, constant(BYTES, mask)),
            codes,
        )
        for start, mask, codes in zip((0, 16), (15, 0xF0), _code_pair(builder, query), strict=True)
    ]
    return _concatenate(builder, *parts)


def _vnni_fold(builder: Any, sums: Any) -> Any:
    high = builder.ashr(take_lanes(builder, sums, 16, 16), constant(INTS, 4))
    return builder.add(take_lanes(builder, sums, 0, 16), high)


def _avx2_dot7(builder: Any, sums: Any, some: Any, query: Any) -> Any:
    """AVX2: pairs of products in int16, which hold 2 x 127 x 127, then pairs of those in int32."""
    products = _avx2_products(builder, some, _codes(builder, query))
    return builder.add(sums, _avx2_fold(builder, products))


def _avx2_dot4(builder: Any, sums: Any, packed: Any, query: Any) -> Any:
    """Pairs of both halves fit into int16 four times: 4 x 4 x 15 x 127."""
    pairs = _code_pair(builder, query)
    for some, codes in zip(_nibbles(builder, packed), pairs, strict=True):
        sums = builder.add(sums, _avx2_products(builder, some, codes))
    return sums


def _avx2_products(builder: Any, some: Any, codes: Any) -> Any:
    """Return the sums of two products each, int16x32."""
    wide, half = ir.VectorType(I16, 16), ir.VectorType(I8, 32)
    multiply = declare(builder, "llvm.x86.avx2.pmadd.ub.sw", wide, [half, half])
    return _concatenate(
        builder,
        *(
            builder.call(
                multiply,
                [take_lanes(builder, some, start, 32), take_lanes(builder, codes, start, 32)],
            )
            for start in (0, 32)
        ),
    )


def _avx2_fold(builder: Any, pairs: Any) -> Any:
    return _avx2_pairs(builder, pairs, constant(_SHORTS, 1))


def _avx2_pairs(builder: Any, some: Any, others: Any) -> Any:
    wide = ir.VectorType(I16, 16)
    add_pairs = declare(builder, "llvm.x86.avx2.pmadd.wd", ir.VectorType(I32, 8), [wide, wide])
    factors = (
        [take_lanes(builder, some, start, 16), take_lanes(builder, others, start, 16)]
        for start in (0, 16)
    )
    return _concatenate(builder, *(builder.call(add_pairs, pair) for pair in factors))


def _plain_dot7(builder: Any, sums: Any, some: Any, query: Any) -> Any:
    """Any processor: products in int16; their sums, in twos and then in fours, in int32."""
    products = ir.VectorType(I16, 64)
    codes = _codes(builder, query)
    whole = builder.sext(
        builder.mul(builder.zext(some, products), builder.sext(codes, products)),
        ir.VectorType(I32, 64),
    )
    return builder.add(sums, add_neighbours(builder, add_neighbours(builder, whole)))


def _plain_dot4(builder: Any, sums: Any, packed: Any, query: Any) -> Any:
    """Pairs of products of halves fit into int16."""
    products = ir.VectorType(I16, 64)
    low, high = (
        builder.mul(builder.zext(some, products), builder.sext(codes, products))
        for some, codes in zip(_nibbles(builder, packed), _code_pair(builder, query), strict=True)
    )
    pairs = add_neighbours(builder, builder.add(low, high))
    return builder.add(sums, add_neighbours(builder, builder.sext(pairs, ir.VectorType(I32, 32))))


def _plain_pairs(builder: Any, some: Any, others: Any) -> Any:
    halves = (
        builder.mul(
            *(
                builder.sext(take_lanes(builder, factor, start, 16), INTS)
                for factor in (some, others)
            )
        )
        for start in (0, 16)
    )
    return builder.add(*halves)


def _dotprod_dot7(builder: Any, sums: Any, some: Any, query: Any) -> Any:
    return _dotprod_dot(builder, sums, some, _codes(builder, query))


def _dotprod_dot(builder: Any, sums: Any, some: Any, codes: Any) -> Any:
    """ARM's dot product extension: one instruction adds four products to each of four sums.

    It is called through a stand-in (`stand_ins`).
    """
    dot = SDOT.function(builder.module)
    parts = [
        builder.call(
            dot,
            [
                take_lanes(builder, sums, 4 * quarter, 4),
                take_lanes(builder, some, 16 * quarter, 16),
                take_lanes(builder, codes, 16 * quarter, 16),
            ],
        )
        for quarter in range(4)
    ]
    return _concatenate(
        builder, _concatenate(builder, *parts[:2]), _concatenate(builder, *parts[2:])
    )


def _dotprod_dot4(builder: Any, sums: Any, packed: Any, query: Any) -> Any:
    pairs = _code_pair(builder, query)
    for some, codes in zip(_nibbles(builder, packed), pairs, strict=True):
        sums = _dotprod_dot(builder, sums, some, codes)
    return sums


def _simd128_dot7(builder: Any, sums: Any, some: Any, query: Any) -> Any:
    """WebAssembly multiplies int16 only. (Relaxed SIMD has bytes, but wrong sums in some browsers.)

    With two bytes P = e + 256 o, e y + o z = P y + o (z - 256 y): the even byte is not cut out.
    """
    pairs = builder.bitcast(some, _SHORTS)
    odd = builder.lshr(pairs, constant(_SHORTS, 8))
    return _add_products(builder, sums, [pairs, odd], query)


def _simd128_dot4(builder: Any, sums: Any, packed: Any, query: Any) -> Any:
    """With a byte B = l + 16 h of two codes, 16 (l y + h z) = B z + l (16 y - z).

    So the high codes need not be cut out, and the sums are sixteen times too large until folded.
    """
    pairs = builder.bitcast(packed, _SHORTS)
    whole = [
        builder.and_(pairs, constant(_SHORTS, 255)),
        builder.lshr(pairs, constant(_SHORTS, 8)),
    ]
    low = [builder.and_(byte, constant(_SHORTS, 15)) for byte in whole]
    return _add_products(builder, sums, [*whole, *low], query)


def _add_products(builder: Any, sums: Any, factors: list[Any], query: Any) -> Any:
    """Return the sums plus the products of int16 with the query's words, four bytes a factor."""
    words = [
        builder.bitcast(
            emit_splat(
                builder,
                emit_load(builder, builder.add(query, I64(4 * i)), I32, 4),
                ir.VectorType(I32, 4),
            ),
            ir.VectorType(I16, 8),
        )
        for i in range(len(factors))
    ]
    dot = PAIRS.function(builder.module)
    quarters = []
    for quarter in range(4):
        total = take_lanes(builder, sums, 4 * quarter, 4)
        for factor, word in zip(factors, words, strict=True):
            part = take_lanes(builder, factor, 8 * quarter, 8)
            total = builder.add(total, builder.call(dot, [part, word]))
        quarters.append(total)
    return _concatenate(
        builder, _concatenate(builder, *quarters[:2]), _concatenate(builder, *quarters[2:])
    )


def _simd128_fold(builder: Any, sums: Any) -> Any:
    return builder.ashr(sums, constant(INTS, 4))


def _simd128_pairs(builder: Any, some: Any, others: Any) -> Any:
    dot = PAIRS.function(builder.module)
    quarters = [
        builder.call(
            dot, [take_lanes(builder, factor, 8 * quarter, 8) for factor in (some, others)]
        )
        for quarter in range(4)
    ]
    return _concatenate(
        builder, _concatenate(builder, *quarters[:2]), _concatenate(builder, *quarters[2:])
    )


def _concatenate(builder: Any, some: Any, others: Any) -> Any:
    """Return the lanes of two vectors, one after the other."""
    return builder.shuffle_vector(some, others, shuffle_mask(range(2 * some.type.count)))


_UNLIMITED = 1 << 30  # int32 sums of at most MAX_DIMENSIONS products do not overflow
KINDS = {
    "vnni": Instructions(
        _vnni_dot7, ir.VectorType(I32, 32), _UNLIMITED, _vnni_dot4, _vnni_fold, _vnni_pairs
    ),
    "avx2": Instructions(
        _avx2_dot7, ir.VectorType(I16, 32), 4, _avx2_dot4, _avx2_fold, _avx2_pairs
    ),
    "dotprod": Instructions(
        _dotprod_dot7, INTS, _UNLIMITED, _dotprod_dot4, _unfolded, _plain_pairs
    ),
    "simd128": Instructions(
        _simd128_dot7, INTS, _UNLIMITED, _simd128_dot4, _simd128_fold, _simd128_pairs
    ),
    "plain": Instructions(_plain_dot7, INTS, _UNLIMITED, _plain_dot4, _unfolded, _plain_pairs),
}
_instructions = KINDS[cpu.kind()]
MAX_DOT4 = _instructions.max_dot4
dot7, zero_sums, dot4, fold_sums = dots_of(_instructions)
row_dot = row_dot_of(_instructions)
