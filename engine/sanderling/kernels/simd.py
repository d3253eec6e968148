"""SIMD vectors as values in numba, and how the kernels are compiled.

A `Lanes` value is one LLVM vector. LLVM splits vectors that are wider than the processor's, so that
the kernels are written once. Addresses are plain integers.
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
from sanderling.kernels.layout import BLOCK_ROWS, FOUR_BITS, GROUP_DIMS, LANES
from sanderling.kernels.stand_ins import BITMASK

# Kernels raise nothing, so that they call nothing of Python and can be linked into a library
# without it. Only `reordered` functions may sum in any order.
_bare = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
called = njit(**_bare)
inlined = njit(forceinline=True, **_bare)
reordered = njit(forceinline=True, fastmath={"reassoc"}, **_bare)


def exported(body: Callable[..., Any]) -> Any:
    """Compile an entry point that takes six int64 and returns one.

    numba caches it beside its source or in the user's cache folder. Where neither can be written it
    is compiled anew.
    """
    compiler = partial(cfunc, types.int64(*[types.int64] * 6), error_model="numpy")
    try:
        return compiler(cache=cpu.forced is None)(body)
    except RuntimeError:  # numba's answer where it finds no folder for its cache
        return compiler()(body)


I8 = ir.IntType(8)
I16 = ir.IntType(16)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
F32 = ir.FloatType()
F64 = ir.DoubleType()
BYTES = ir.VectorType(I8, 64)
INTS = ir.VectorType(I32, 16)
FLOATS = ir.VectorType(F32, 16)
DOUBLES = ir.VectorType(F64, 16)


class Lanes(types.Type):
    """The numba type of an LLVM vector."""

    def __init__(self, name: str, vector: ir.VectorType) -> None:
        super().__init__(name)
        self.vector = vector


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, lanes.vector)


int32x16 = Lanes("int32x16", INTS)
float32x16 = Lanes("float32x16", FLOATS)
float64x16 = Lanes("float64x16", DOUBLES)


def emit_load(builder: Any, address: Any, kind: Any, align: int) -> Any:
    """Emit a load from an address."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def emit_splat(builder: Any, value: Any, vector: ir.VectorType) -> Any:
    """Emit a vector of one value."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, I32(0))
    zeros = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, first, zeros)


def constant(vector: ir.VectorType, value: int) -> ir.Constant:
    """Return a constant vector of one value."""
    return ir.Constant(vector, [value] * vector.count)


def _pointer(kind: Any) -> Any:
    """Return an intrinsic that turns an address into a pointer, which is indexed like an array."""

    @intrinsic
    def pointer(typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.inttoptr(values[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), emit

    return pointer


int8s = _pointer(types.int8)
uint8s = _pointer(types.uint8)
int16s = _pointer(types.int16)
uint16s = _pointer(types.uint16)
int64s = _pointer(types.int64)
uint64s = _pointer(types.uint64)
float32s = _pointer(types.float32)
float64s = _pointer(types.float64)


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
def double_bits(typing: Any, value: Any) -> Any:
    """Return the 64 bits of a float64."""
    return types.uint64(types.float64), lambda context, builder, signature, values: builder.bitcast(
        values[0], I64
    )


@intrinsic
def double_of(typing: Any, bits: Any) -> Any:
    """Return the float64 of 64 bits."""
    return types.float64(types.uint64), lambda context, builder, signature, values: builder.bitcast(
        values[0], F64
    )


@intrinsic
def zero_ints(typing: Any) -> Any:
    """Return sixteen zeros."""
    return int32x16(), lambda context, builder, signature, values: constant(INTS, 0)


@intrinsic
def broadcast(typing: Any, value: Any) -> Any:
    """Return a vector of one float32, sixteen times."""
    return float32x16(types.float32), lambda context, builder, signature, values: emit_splat(
        builder, values[0], FLOATS
    )


@intrinsic
def upper_bounds(typing: Any, sums: Any, step: Any, offset: Any, scales: Any, biases: Any) -> Any:
    """Return scale x (sum x step + offset) + bias; scales and biases are bfloat16 at addresses."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        whole, factor, addend, scale, bias = values
        fused = declare(builder, "llvm.fmuladd.v16f32", FLOATS, [FLOATS, FLOATS, FLOATS])
        scaled = builder.call(fused, [builder.sitofp(whole, FLOATS), factor, addend])
        return builder.call(
            fused, [scaled, _load_bfloats(builder, scale), _load_bfloats(builder, bias)]
        )

    return float32x16(int32x16, float32x16, float32x16, types.int64, types.int64), emit


def _load_bfloats(builder: Any, address: Any) -> Any:
    halves = emit_load(builder, address, ir.VectorType(I16, 16), 32)
    return builder.bitcast(builder.shl(builder.zext(halves, INTS), constant(INTS, 16)), FLOATS)


@intrinsic
def lanes_at_least(typing: Any, bounds: Any, threshold: Any) -> Any:
    """Return an int64 in which bit i is set if lane i, of sixteen, is at least the threshold's."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        reached = builder.fcmp_ordered(">=", *values)
        if cpu.kind() == "simd128":
            bits = builder.call(BITMASK.function(builder.module), [builder.sext(reached, INTS)])
        else:
            bits = builder.bitcast(reached, I16)
        return builder.zext(bits, I64)

    return types.int64(float32x16, float32x16), emit


@intrinsic
def store_floats(typing: Any, address: Any, values: Any) -> Any:
    """Write sixteen floats to an address."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[1], builder.inttoptr(values[0], FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, float32x16), emit


@intrinsic
def load_floats(typing: Any, address: Any) -> Any:
    """Return the sixteen float32 at an address."""
    return float32x16(types.int64), lambda context, builder, signature, values: emit_load(
        builder, values[0], FLOATS, 4
    )


@intrinsic
def load_doubles(typing: Any, address: Any) -> Any:
    """Return the sixteen float64 at an address."""
    return float64x16(types.int64), lambda context, builder, signature, values: emit_load(
        builder, values[0], DOUBLES, 8
    )


@intrinsic
def store_doubles(typing: Any, address: Any, values: Any) -> Any:
    """Write sixteen float64 to an address."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[1], builder.inttoptr(values[0], DOUBLES.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.void(types.int64, float64x16), emit


@intrinsic
def add_products(typing: Any, sums: Any, address: Any, factor: Any) -> Any:
    """Return the sums plus the products of the sixteen float32 at an address with a float32.

    A float64 holds such a product exactly: to fuse product and sum would change no bit.
    """

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        weights = builder.fpext(emit_load(builder, values[1], FLOATS, 4), DOUBLES)
        factors = emit_splat(builder, builder.fpext(values[2], F64), DOUBLES)
        return builder.fadd(values[0], builder.fmul(weights, factors))

    return float64x16(float64x16, types.int64, types.float32), emit


@intrinsic
def maximum(typing: Any, some: Any, others: Any) -> Any:
    """Return the lane-wise maximum of two vectors without NaN."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *values), *values)

    return float32x16(float32x16, float32x16), emit


@intrinsic
def masked_out(typing: Any, values: Any, mask: Any) -> Any:
    """Return the floats with minus infinity where the lowest sixteen bits of a mask are set."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        bits = emit_splat(builder, builder.trunc(values[1], I32), INTS)
        lane_bits = ir.Constant(INTS, [1 << lane for lane in range(LANES)])
        masked = builder.icmp_unsigned("!=", builder.and_(bits, lane_bits), constant(INTS, 0))
        return builder.select(masked, constant(FLOATS, float("-inf")), values[0])

    return float32x16(float32x16, types.uint64), emit


@intrinsic
def lowest_bit(typing: Any, mask: Any) -> Any:
    """Return the index of the lowest set bit; the mask must not be 0."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), emit


def _load_widened(kind: ir.IntType) -> Any:
    """Return an intrinsic that loads sixteen integers of a kind from an address as int32."""

    @intrinsic
    def load_widened(typing: Any, address: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return builder.sext(emit_load(builder, values[0], ir.VectorType(kind, 16), 1), INTS)

        return int32x16(types.int64), emit

    return load_widened


load_int8s = _load_widened(I8)
load_int16s = _load_widened(I16)


@intrinsic
def multiply_add(typing: Any, sums: Any, some: Any, others: Any) -> Any:
    """Return sums + some x others."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.add(values[0], builder.mul(values[1], values[2]))

    return int32x16(int32x16, int32x16, int32x16), emit


@intrinsic
def add(typing: Any, some: Any, others: Any) -> Any:
    """Return the lane-wise sum of two vectors."""
    return int32x16(int32x16, int32x16), lambda context, builder, signature, values: builder.add(
        *values
    )


@intrinsic
def sum_lanes(typing: Any, sums: Any) -> Any:
    """Return the sum of sixteen int32 as an int64; it must fit into an int32."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        reduce = declare(builder, "llvm.vector.reduce.add.v16i32", I32, [INTS])
        return builder.sext(builder.call(reduce, values), I64)

    return types.int64(int32x16), emit


@intrinsic
def prefetch(typing: Any, address: Any) -> Any:
    """Ask memory for the cache line of an address."""

    def emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, I32, I32, I32])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(
            # to read (0), to be kept in all caches (3), of the data cache (1)
            fetch,
            [builder.inttoptr(values[0], cgutils.voidptr_t), I32(0), I32(3), I32(1)],
        )
        return context.get_dummy_value()

    return types.void(types.int64), emit


@inlined
def plane_size(groups: Any, bits: Any) -> Any:
    """Return the bytes of a plane of so many groups of dimensions (`layout.plane_bytes`)."""
    size = groups * (BLOCK_ROWS * GROUP_DIMS)
    return size // 2 if bits == FOUR_BITS else size


def declare(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    """Declare an intrinsic function of LLVM or of the processor in the module, and return it."""
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


def take_lanes(builder: Any, vector: Any, start: int, count: int) -> Any:
    """Emit `count` lanes of a vector."""
    return builder.shuffle_vector(vector, vector, shuffle_mask(range(start, start + count)))


def shuffle_mask(lanes: range) -> ir.Constant:
    """Return the index vector of a shuffle that takes these lanes."""
    return ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
