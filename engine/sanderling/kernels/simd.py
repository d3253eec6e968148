"""Vectors of the processor as values in numba: loads, stores, bounds, masks; and the compile policy.

A `Lanes` value is one LLVM vector; wider ones than the processor has are split by LLVM, so that the kernels are written
once. Addresses are plain integers. Refuses to know what is scanned.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir
from numba import cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from sanderling.kernels import cpu
from sanderling.kernels.layout import GROUP, HALF, ROWS

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


I8, I16, I32, I64, F32 = (
    ir.IntType(8),
    ir.IntType(16),
    ir.IntType(32),
    ir.IntType(64),
    ir.FloatType(),
)
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


def load(builder: Any, address: Any, kind: Any, align: int) -> Any:
    """Emit a load from an address."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def splat(builder: Any, value: Any, vector: ir.VectorType) -> Any:
    """Emit a vector of one value."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, I32(0))
    return builder.shuffle_vector(
        one, one, ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    )


def fill(vector: ir.VectorType, value: int) -> ir.Constant:
    """Return a constant vector of one value."""
    return ir.Constant(vector, [value] * vector.count)


def _pointer(kind: Any) -> Any:
    @intrinsic
    def pointer(typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.inttoptr(values[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), emit

    return pointer


int8s, uint8s, int16s, uint16s = map(_pointer, (types.int8, types.uint8, types.int16, types.uint16))
int64s, uint64s, float32s, float64s = map(
    _pointer, (types.int64, types.uint64, types.float32, types.float64)
)


@intrinsic
def bits_of(typing: Any, value: Any) -> Any:
    """Return the 32 bits of a float32."""
    return types.uint32(types.float32), lambda context, builder, signature, values: builder.bitcast(
        values[0], I32
    )


@intrinsic
def float_of(typing: Any, bits: Any) -> Any:
    """Return the float32 of 32 bits."""
    return types.float32(types.uint32), lambda context, builder, signature, values: builder.bitcast(
        values[0], F32
    )


@intrinsic
def no_ints(typing: Any) -> Any:
    """Return sixteen zeros."""
    return ints(), lambda context, builder, signature, values: fill(INTS, 0)


@intrinsic
def all_floats(typing: Any, value: Any) -> Any:
    """Return sixteen times a float32."""
    return floats(types.float32), lambda context, builder, signature, values: splat(
        builder, values[0], FLOATS
    )


@intrinsic
def upper_bounds(typing: Any, sums: Any, step: Any, offset: Any, scales: Any, biases: Any) -> Any:
    """Return scale x (sum x step + offset) + bias for sixteen rows; scales and biases are addresses of bfloat16."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        total, factor, addend, scale, bias = values
        fused = declared(builder, "llvm.fmuladd.v16f32", FLOATS, [FLOATS, FLOATS, FLOATS])
        scaled = builder.call(fused, [builder.sitofp(total, FLOATS), factor, addend])
        return builder.call(fused, [scaled, _bfloats(builder, scale), _bfloats(builder, bias)])

    return floats(ints, floats, floats, types.int64, types.int64), emit


def _bfloats(builder: Any, address: Any) -> Any:
    halves = load(builder, address, ir.VectorType(I16, 16), 32)
    return builder.bitcast(builder.shl(builder.zext(halves, INTS), fill(INTS, 16)), FLOATS)


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
    return floats(types.int64), lambda context, builder, signature, values: load(
        builder, values[0], FLOATS, 4
    )


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
        return builder.select(lanes, fill(FLOATS, float("-inf")), values[0])

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
            return builder.sext(load(builder, values[0], ir.VectorType(kind, 16), 1), INTS)

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
def added(typing: Any, some: Any, others: Any) -> Any:
    """Return the sums of each two int32."""
    return ints(ints, ints), lambda context, builder, signature, values: builder.add(*values)


@intrinsic
def total(typing: Any, sums: Any) -> Any:
    """Return the sum of sixteen int32, which must fit into one, as an int64."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        add = declared(builder, "llvm.vector.reduce.add.v16i32", I32, [INTS])
        return builder.sext(builder.call(add, values), I64)

    return types.int64(ints), emit


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Ask for the cache line of an address."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, I32, I32, I32])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(
            fetch, [builder.inttoptr(values[0], cgutils.voidptr_t), I32(0), I32(3), I32(1)]
        )
        return context.get_dummy_value()

    return types.void(types.int64), emit


@inlined
def plane_size(groups: Any, bits: Any) -> Any:
    """Return the bytes of a block's plane of so many groups of eight dimensions."""
    return groups * (ROWS * GROUP // 2) if bits == HALF else groups * (ROWS * GROUP)


def declared(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Return a function of LLVM or of the processor."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def part(builder: Any, vector: Any, start: int, count: int) -> Any:
    """Emit `count` lanes of a vector."""
    return builder.shuffle_vector(vector, vector, places(range(start, start + count)))


def places(numbers: range) -> ir.Constant:
    """Return the constant that tells a shuffle which lanes to take."""
    return ir.Constant(ir.VectorType(I32, len(numbers)), list(numbers))
