"""The dot products of planes with a query, by each instruction set; those of this processor are `whole_dot` and
`half_dot`. Refuses to know what is scanned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from sanderling.kernels import cpu
from sanderling.kernels.layout import SDOT
from sanderling.kernels.simd import (
    BYTES,
    I8,
    I16,
    I32,
    I64,
    INTS,
    Lanes,
    declared,
    fill,
    ints,
    load,
    part,
    places,
    splat,
)

_SHORTS = ir.VectorType(I16, 32)


class Instructions(NamedTuple):
    """How one instruction set multiplies bytes with the query, whole ones and halves.

    `products` adds four products to each of sixteen sums. For halves there are several partial sums a row, in one
    vector `sums`: `halves` adds eight products to them, at most `most` times, and `fold` ends it. `pairs` returns the
    sums int32x16 of two products each, of int16x32 and int16x32.
    """

    products: Callable[..., Any]
    sums: ir.VectorType
    most: int
    halves: Callable[..., Any]
    fold: Callable[..., Any]
    pairs: Callable[..., Any]


def row_dot_of(kind: Instructions) -> Any:
    """Return the intrinsic `row_dot(ints, row, codes)`, which adds 32 products of int8 and int16 at two addresses."""

    @intrinsic
    def row_dot(typing: Any, before: Any, row: Any, codes: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            values_of_row = builder.sext(
                load(builder, values[1], ir.VectorType(I8, 32), 1), _SHORTS
            )
            return builder.add(
                values[0], kind.pairs(builder, values_of_row, load(builder, values[2], _SHORTS, 2))
            )

        return ints(ints, types.int64, types.int64), emit

    return row_dot


def dots_of(kind: Instructions) -> tuple[Any, Any, Any, Any]:
    """Return the intrinsics `whole_dot(ints, address, query)`, 16 rows by 4 dimensions in bytes of 0 to 127, and
    `no_sums()`, `half_dot(sums, address, query)`, 16 rows by 8 dimensions in halves of bytes, and `folded(sums)`.

    At the address lie 64 bytes, four for each row. Halves: dimensions 0 to 3 are the low ones, 4 to 7 the high ones.
    The query's int8 lie at `query`.
    """
    vector = kind.sums
    sums = Lanes(f"sums of {vector}", vector)

    @intrinsic
    def no_sums(typing: Any) -> Any:
        return sums(), lambda context, builder, signature, values: fill(vector, 0)

    @intrinsic
    def half_dot(typing: Any, before: Any, address: Any, query: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            packed = load(builder, values[1], BYTES, 64)
            codes = [_codes(builder, at) for at in (values[2], builder.add(values[2], I64(4)))]
            return kind.halves(builder, values[0], packed, codes)

        return sums(sums, types.int64, types.int64), emit

    @intrinsic
    def whole_dot(typing: Any, before: Any, address: Any, query: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return kind.products(
                builder, values[0], load(builder, values[1], BYTES, 64), _codes(builder, values[2])
            )

        return ints(ints, types.int64, types.int64), emit

    @intrinsic
    def folded(typing: Any, whole: Any) -> Any:
        return ints(sums), lambda context, builder, signature, values: kind.fold(builder, values[0])

    return whole_dot, no_sums, half_dot, folded


def _codes(builder: Any, address: Any) -> Any:
    return builder.bitcast(splat(builder, load(builder, address, I32, 4), INTS), BYTES)


def _halves(builder: Any, packed: Any) -> tuple[Any, Any]:
    return builder.and_(packed, fill(BYTES, 15)), builder.lshr(packed, fill(BYTES, 4))


def _same(builder: Any, sums: Any) -> Any:
    return sums


def _vnni_pairs(builder: Any, some: Any, others: Any) -> Any:
    return builder.call(
        declared(builder, "llvm.x86.avx512.pmaddw.d.512", INTS, [_SHORTS, _SHORTS]), [some, others]
    )


def vnni(builder: Any, sums: Any, some: Any, codes: Any) -> Any:
    """AVX-512 VNNI: one instruction."""
    dot = declared(builder, "llvm.x86.avx512.vpdpbusd.512", INTS, [INTS, BYTES, BYTES])
    return builder.call(dot, [sums, some, codes])


def _vnni_halves(builder: Any, sums: Any, packed: Any, query: Any) -> Any:
    """The high halves are not shifted down: their sums, sixteen times too large, stay apart.

    On Zen 4 a shift would take the place of a product.
    """
    parts = [
        vnni(
            builder, part(builder, sums, start, 16), builder.and_(packed, fill(BYTES, mask)), codes
        )
        for start, mask, codes in zip((0, 16), (15, 0xF0), query, strict=True)
    ]
    return _joined(builder, *parts)


def _vnni_fold(builder: Any, sums: Any) -> Any:
    high = builder.ashr(part(builder, sums, 16, 16), fill(INTS, 4))
    return builder.add(part(builder, sums, 0, 16), high)


def avx2(builder: Any, sums: Any, some: Any, codes: Any) -> Any:
    """AVX2: pairs of products in int16, which hold 2 x 127 x 127, then pairs of those in int32."""
    return builder.add(sums, _avx2_fold(builder, _avx2_products(builder, some, codes)))


def _avx2_halves(builder: Any, sums: Any, packed: Any, query: Any) -> Any:
    """Pairs of both halves fit into int16 four times: 4 x 4 x 15 x 127."""
    for some, codes in zip(_halves(builder, packed), query, strict=True):
        sums = builder.add(sums, _avx2_products(builder, some, codes))
    return sums


def _avx2_products(builder: Any, some: Any, codes: Any) -> Any:
    """Return the sums of two products each, int16x32."""
    wide, half = ir.VectorType(I16, 16), ir.VectorType(I8, 32)
    multiply = declared(builder, "llvm.x86.avx2.pmadd.ub.sw", wide, [half, half])
    return _joined(
        builder,
        *(
            builder.call(
                multiply, [part(builder, some, start, 32), part(builder, codes, start, 32)]
            )
            for start in (0, 32)
        ),
    )


def _avx2_fold(builder: Any, pairs: Any) -> Any:
    return _avx2_pairs(builder, pairs, fill(_SHORTS, 1))


def _avx2_pairs(builder: Any, some: Any, others: Any) -> Any:
    wide = ir.VectorType(I16, 16)
    add = declared(builder, "llvm.x86.avx2.pmadd.wd", ir.VectorType(I32, 8), [wide, wide])
    factors = (
        [part(builder, some, start, 16), part(builder, others, start, 16)] for start in (0, 16)
    )
    return _joined(builder, *(builder.call(add, pair) for pair in factors))


def plain(builder: Any, sums: Any, some: Any, codes: Any) -> Any:
    """Any processor: products in int16, and their pairs, and pairs of those, in int32."""
    products = ir.VectorType(I16, 64)
    whole = builder.sext(
        builder.mul(builder.zext(some, products), builder.sext(codes, products)),
        ir.VectorType(I32, 64),
    )
    return builder.add(sums, _neighbours_added(builder, _neighbours_added(builder, whole)))


def _plain_halves(builder: Any, sums: Any, packed: Any, query: Any) -> Any:
    """Pairs of products of halves fit into int16."""
    products = ir.VectorType(I16, 64)
    low, high = (
        builder.mul(builder.zext(some, products), builder.sext(codes, products))
        for some, codes in zip(_halves(builder, packed), query, strict=True)
    )
    pairs = _neighbours_added(builder, builder.add(low, high))
    return builder.add(
        sums, _neighbours_added(builder, builder.sext(pairs, ir.VectorType(I32, 32)))
    )


def _plain_pairs(builder: Any, some: Any, others: Any) -> Any:
    halves = (
        builder.mul(*(builder.sext(part(builder, one, start, 16), INTS) for one in (some, others)))
        for start in (0, 16)
    )
    return builder.add(*halves)


def dotprod(builder: Any, sums: Any, some: Any, codes: Any) -> Any:
    """ARM's dot product extension: one instruction adds four products to each of four sums.

    It is called through `SDOT`, whose body any processor can compile and `build` replaces by the instruction.
    """
    dot = _sdot(builder.module)
    parts = [
        builder.call(
            dot,
            [
                part(builder, sums, 4 * at, 4),
                *(part(builder, one, 16 * at, 16) for one in (some, codes)),
            ],
        )
        for at in range(4)
    ]
    return _joined(builder, _joined(builder, *parts[:2]), _joined(builder, *parts[2:]))


def _dotprod_halves(builder: Any, sums: Any, packed: Any, query: Any) -> Any:
    for some, codes in zip(_halves(builder, packed), query, strict=True):
        sums = dotprod(builder, sums, some, codes)
    return sums


def _sdot(module: Any) -> Any:
    four, sixteen = ir.VectorType(I32, 4), ir.VectorType(I8, 16)
    found = cgutils.get_or_insert_function(
        module, ir.FunctionType(four, [four, sixteen, sixteen]), SDOT
    )
    if found.is_declaration:
        found.linkage = "linkonce_odr"
        found.attributes.add("noinline")
        builder = ir.IRBuilder(found.append_basic_block())
        sums, *factors = found.args
        products = builder.mul(
            *(builder.sext(factor, ir.VectorType(I32, 16)) for factor in factors)
        )
        builder.ret(
            builder.add(sums, _neighbours_added(builder, _neighbours_added(builder, products)))
        )
    return found


def _neighbours_added(builder: Any, vector: Any) -> Any:
    count = vector.type.count
    return builder.add(
        *(builder.shuffle_vector(vector, vector, places(range(at, count, 2))) for at in (0, 1))
    )


def _joined(builder: Any, some: Any, others: Any) -> Any:
    return builder.shuffle_vector(some, others, places(range(2 * some.type.count)))


_ANY = 1 << 30
KINDS = {
    "vnni": Instructions(vnni, ir.VectorType(I32, 32), _ANY, _vnni_halves, _vnni_fold, _vnni_pairs),
    "avx2": Instructions(avx2, ir.VectorType(I16, 32), 4, _avx2_halves, _avx2_fold, _avx2_pairs),
    "dotprod": Instructions(dotprod, INTS, _ANY, _dotprod_halves, _same, _plain_pairs),
    "plain": Instructions(plain, INTS, _ANY, _plain_halves, _same, _plain_pairs),
}
MOST_HALVES = KINDS[cpu.kind()].most
whole_dot, no_sums, half_dot, folded = dots_of(KINDS[cpu.kind()])
row_dot = row_dot_of(KINDS[cpu.kind()])
