"""Vectors of the processor as values in numba: loads, the four-bit dot product of each instruction set, bounds.

A `Lanes` value is one LLVM vector; wider ones than the processor has are split by LLVM, so that the kernels are written
once. Addresses are plain integers. Refuses to know what is scanned.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

from llvmlite import ir
from numba import cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from sanderling.kernels import cpu
from sanderling.kernels.layout import GROUP, HALF, ROWS, SDOT

# The compile policy: no exceptions, so that nothing of Python is called; sums in any order only where it is said.
_bare = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
called = njit(**_bare)
inlined = njit(forceinline=True, **_bare)
reordered = njit(forceinline=True, fastmath={"reassoc"}, **_bare)


def exported(body: Callable[..., Any]) -> Any:
    """Compile a kernel of six int64 that returns one; kept in a cache beside it, or the user's, where there is one."""
    compiler = partial(cfunc, types.int64(*[types.int64] * 6), error_model="numpy")
    try:
        return compiler(cache=cpu.forced is None)(body)
    except RuntimeError:
        return compiler()(body)


I8, I16, I32, I64, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
BYTES, INTS, FLOATS = ir.VectorType(I8, 64), ir.VectorType(I32, 16), ir.VectorType(F32, 16)


class Lanes(types.Type):
    """The numba type of an LLVM vector."""

    def __init__(self, name: str, vector: ir.VectorType) -> None:
        super().__init__(name)
        self.vector = vector


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, lanes.vector)


ints, floats = Lanes("int32x16", INTS), Lanes("float32x16", FLOATS)


def _load(builder: Any, address: Any, kind: Any, align: int) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _splat(builder: Any, value: Any, vector: ir.VectorType) -> Any:
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, I32(0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count))


def _fill(vector: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(vector, [value] * vector.count)


def _pointer(kind: Any) -> Any:
    @intrinsic
    def pointer(typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.inttoptr(values[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), emit

    return pointer


int8s, uint8s, int16s, uint16s = map(_pointer, (types.int8, types.uint8, types.int16, types.uint16))
int64s, uint64s, float32s, float64s = map(_pointer, (types.int64, types.uint64, types.float32, types.float64))


@intrinsic
def bits_of(typing: Any, value: Any) -> Any:
    """Return the 32 bits of a float32."""
    return types.uint32(types.float32), lambda context, builder, signature, values: builder.bitcast(values[0], I32)


@intrinsic
def float_of(typing: Any, bits: Any) -> Any:
    """Return the float32 of 32 bits."""
    return types.float32(types.uint32), lambda context, builder, signature, values: builder.bitcast(values[0], F32)


@intrinsic
def no_ints(typing: Any) -> Any:
    """Return sixteen zeros."""
    return ints(), lambda context, builder, signature, values: _fill(INTS, 0)


@intrinsic
def all_floats(typing: Any, value: Any) -> Any:
    """Return sixteen times a float32."""
    return floats(types.float32), lambda context, builder, signature, values: _splat(builder, values[0], FLOATS)


@intrinsic
def upper_bounds(typing: Any, sums: Any, step: Any, offset: Any, scales: Any, biases: Any) -> Any:
    """Return scale x (sum x step + offset) + bias for sixteen rows; scales and biases are addresses of bfloat16."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        total, factor, addend, scale, bias = values
        fused = _declared(builder, "llvm.fmuladd.v16f32", FLOATS, [FLOATS, FLOATS, FLOATS])
        scaled = builder.call(fused, [builder.sitofp(total, FLOATS), factor, addend])
        return builder.call(fused, [scaled, _bfloats(builder, scale), _bfloats(builder, bias)])

    return floats(ints, floats, floats, types.int64, types.int64), emit


def _bfloats(builder: Any, address: Any) -> Any:
    halves = _load(builder, address, ir.VectorType(I16, 16), 32)
    return builder.bitcast(builder.shl(builder.zext(halves, INTS), _fill(INTS, 16)), FLOATS)


@intrinsic
def reached(typing: Any, bounds: Any, threshold: Any) -> Any:
    """Return the sixteen bits of the lanes that are at least the threshold's, as an int64."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.zext(builder.bitcast(builder.fcmp_ordered(">=", *values), I16), I64)

    return types.int64(floats, floats), emit


@intrinsic
def store(typing: Any, address: Any, values: Any) -> Any:
    """Write sixteen floats to an address."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[1], builder.inttoptr(values[0], FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, floats), emit


@intrinsic
def floats_at(typing: Any, address: Any) -> Any:
    """Return the sixteen float32 at an address."""
    return floats(types.int64), lambda context, builder, signature, values: _load(builder, values[0], FLOATS, 4)


@intrinsic
def larger(typing: Any, some: Any, others: Any) -> Any:
    """Return the larger of each two floats, neither NaN."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *values), *values)

    return floats(floats, floats), emit


@intrinsic
def without(typing: Any, values: Any, mask: Any) -> Any:
    """Return the floats with minus infinity where the lowest sixteen bits of a mask are set."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lanes = builder.bitcast(builder.trunc(values[1], I16), ir.VectorType(ir.IntType(1), 16))
        return builder.select(lanes, _fill(FLOATS, float("-inf")), values[0])

    return floats(floats, types.uint64), emit


@intrinsic
def lowest_bit(typing: Any, mask: Any) -> Any:
    """Return the place of the lowest bit of a mask that is not 0."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), emit


def _widened(kind: ir.IntType) -> Any:
    @intrinsic
    def widened(typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.sext(_load(builder, values[0], ir.VectorType(kind, 16), 1), INTS)

        return ints(types.int64), emit

    return widened


bytes_at, shorts_at = _widened(I8), _widened(I16)  # sixteen int8 or int16 at an address, as int32


@intrinsic
def multiply_add(typing: Any, sums: Any, some: Any, others: Any) -> Any:
    """Return sums + some x others."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.add(values[0], builder.mul(values[1], values[2]))

    return ints(ints, ints, ints), emit


@intrinsic
def total(typing: Any, sums: Any) -> Any:
    """Return the sum of sixteen int32, which must fit into one, as an int64."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        add = _declared(builder, "llvm.vector.reduce.add.v16i32", I32, [INTS])
        return builder.sext(builder.call(add, values), I64)

    return types.int64(ints), emit


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Ask for the cache line of an address."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, I32, I32, I32])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(fetch, [builder.inttoptr(values[0], cgutils.voidptr_t), I32(0), I32(3), I32(1)])
        return context.get_dummy_value()

    return types.void(types.int64), emit


class Instructions(NamedTuple):
    """How one instruction set multiplies bytes with the query, whole ones and halves.

    `products` adds four products to each of sixteen sums. For halves there are `parts` partial sums a row: `halves`
    adds eight products to them and `fold` ends it.
    """

    products: Callable[..., Any]
    parts: int
    halves: Callable[..., Any]
    fold: Callable[..., Any]


def dots_of(kind: Instructions) -> tuple[Any, Any, Any, Any]:
    """Return the intrinsics `whole_dot(ints, address, query)`, 16 rows by 4 dimensions in bytes of 0 to 127, and
    `no_sums()`, `half_dot(sums, address, query)`, 16 rows by 8 dimensions in halves of bytes, and `folded(sums)`.

    At the address lie 64 bytes, four for each row. Halves: dimensions 0 to 3 are the low ones, 4 to 7 the high ones.
    The query's int8 lie at `query`.
    """
    vector = ir.VectorType(I32, 16 * kind.parts)
    sums = Lanes(f"int32x{vector.count}", vector)

    @intrinsic
    def no_sums(typing: Any) -> Any:
        return sums(), lambda context, builder, signature, values: _fill(vector, 0)

    @intrinsic
    def half_dot(typing: Any, before: Any, address: Any, query: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            packed = _load(builder, values[1], BYTES, 64)
            codes = [_codes(builder, at) for at in (values[2], builder.add(values[2], I64(4)))]
            return kind.halves(builder, values[0], packed, codes)

        return sums(sums, types.int64, types.int64), emit

    @intrinsic
    def whole_dot(typing: Any, before: Any, address: Any, query: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return kind.products(builder, values[0], _load(builder, values[1], BYTES, 64), _codes(builder, values[2]))

        return ints(ints, types.int64, types.int64), emit

    @intrinsic
    def folded(typing: Any, whole: Any) -> Any:
        return ints(sums), lambda context, builder, signature, values: kind.fold(builder, values[0])

    return whole_dot, no_sums, half_dot, folded


def _codes(builder: Any, address: Any) -> Any:
    return builder.bitcast(_splat(builder, _load(builder, address, I32, 4), INTS), BYTES)


def _halves(builder: Any, packed: Any) -> tuple[Any, Any]:
    return builder.and_(packed, _fill(BYTES, 15)), builder.lshr(packed, _fill(BYTES, 4))


def _same(builder: Any, sums: Any) -> Any:
    return sums


def vnni(builder: Any, sums: Any, some: Any, codes: Any) -> Any:
    """AVX-512 VNNI: one instruction."""
    dot = _declared(builder, "llvm.x86.avx512.vpdpbusd.512", INTS, [INTS, BYTES, BYTES])
    return builder.call(dot, [sums, some, codes])


def _vnni_halves(builder: Any, sums: Any, packed: Any, query: Any) -> Any:
    """The high halves are not shifted down: their sums, sixteen times too large, stay apart.

    On Zen 4 a shift would take the place of a product.
    """
    parts = [
        vnni(builder, _part(builder, sums, start, 16), builder.and_(packed, _fill(BYTES, mask)), codes)
        for start, mask, codes in zip((0, 16), (15, 0xF0), query, strict=True)
    ]
    return _joined(builder, *parts)


def _vnni_fold(builder: Any, sums: Any) -> Any:
    high = builder.ashr(_part(builder, sums, 16, 16), _fill(INTS, 4))
    return builder.add(_part(builder, sums, 0, 16), high)


def avx2(builder: Any, sums: Any, some: Any, codes: Any) -> Any:
    """AVX2: pairs of products in int16, which hold 2 x 127 x 127, then pairs of those in int32."""
    return _avx2_pairs(builder, sums, [(some, codes)])


def _avx2_halves(builder: Any, sums: Any, packed: Any, query: Any) -> Any:
    """Pairs of both halves fit into int16 together: 4 x 15 x 127."""
    return _avx2_pairs(builder, sums, list(zip(_halves(builder, packed), query, strict=True)))


def _avx2_pairs(builder: Any, sums: Any, factors: list[tuple[Any, Any]]) -> Any:
    wide, half = ir.VectorType(I16, 16), ir.VectorType(I8, 32)
    multiply = _declared(builder, "llvm.x86.avx2.pmadd.ub.sw", wide, [half, half])
    add = _declared(builder, "llvm.x86.avx2.pmadd.wd", ir.VectorType(I32, 8), [wide, wide])
    parts = []
    for start in (0, 32):
        pairs = [
            builder.call(multiply, [_part(builder, some, start, 32), _part(builder, codes, start, 32)])
            for some, codes in factors
        ]
        parts.append(builder.call(add, [reduce(builder.add, pairs), _fill(wide, 1)]))
    return builder.add(sums, _joined(builder, *parts))


def plain(builder: Any, sums: Any, some: Any, codes: Any) -> Any:
    """Any processor: products in int16, and their pairs, and pairs of those, in int32."""
    products = ir.VectorType(I16, 64)
    whole = builder.sext(
        builder.mul(builder.zext(some, products), builder.sext(codes, products)), ir.VectorType(I32, 64)
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
    return builder.add(sums, _neighbours_added(builder, builder.sext(pairs, ir.VectorType(I32, 32))))


def dotprod(builder: Any, sums: Any, some: Any, codes: Any) -> Any:
    """ARM's dot product extension: one instruction adds four products to each of four sums.

    It is called through `SDOT`, whose body any processor can compile and `build` replaces by the instruction.
    """
    dot = _sdot(builder.module)
    parts = [
        builder.call(
            dot, [_part(builder, sums, 4 * at, 4), *(_part(builder, one, 16 * at, 16) for one in (some, codes))]
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
    found = cgutils.get_or_insert_function(module, ir.FunctionType(four, [four, sixteen, sixteen]), SDOT)
    if found.is_declaration:
        found.linkage = "linkonce_odr"
        found.attributes.add("noinline")
        builder = ir.IRBuilder(found.append_basic_block())
        sums, *factors = found.args
        products = builder.mul(*(builder.sext(factor, ir.VectorType(I32, 16)) for factor in factors))
        builder.ret(builder.add(sums, _neighbours_added(builder, _neighbours_added(builder, products))))
    return found


def _neighbours_added(builder: Any, vector: Any) -> Any:
    count = vector.type.count
    return builder.add(*(builder.shuffle_vector(vector, vector, _places(range(at, count, 2))) for at in (0, 1)))


def _joined(builder: Any, some: Any, others: Any) -> Any:
    return builder.shuffle_vector(some, others, _places(range(2 * some.type.count)))


def _declared(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def _part(builder: Any, vector: Any, start: int, count: int) -> Any:
    return builder.shuffle_vector(vector, vector, _places(range(start, start + count)))


def _places(places: range) -> ir.Constant:
    return ir.Constant(ir.VectorType(I32, len(places)), list(places))


KINDS = {
    "vnni": Instructions(vnni, 2, _vnni_halves, _vnni_fold),
    "avx2": Instructions(avx2, 1, _avx2_halves, _same),
    "dotprod": Instructions(dotprod, 1, _dotprod_halves, _same),
    "plain": Instructions(plain, 1, _plain_halves, _same),
}
whole_dot, no_sums, half_dot, folded = dots_of(KINDS[cpu.kind()])


@inlined
def plane_size(groups: Any, bits: Any) -> Any:
    """Return the bytes of a block's plane of so many groups of eight dimensions."""
    return groups * (ROWS * GROUP // 2) if bits == HALF else groups * (ROWS * GROUP)
