"""Instructions of processors other than this one, as functions that any processor can compile.

numba compiles a kernel for the machine it runs on before the code of it can be had. An instruction
of another machine is therefore called through a function with a portable body, which is not
inlined: `build` finds it in the text of the module and puts the instruction in its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils

_I8 = ir.IntType(8)
_I16 = ir.IntType(16)
_I32 = ir.IntType(32)
_SUMS = ir.VectorType(_I32, 4)
_BYTES = ir.VectorType(_I8, 16)
_SHORTS = ir.VectorType(_I16, 8)
_INTS = ir.VectorType(_I32, 16)


class StandIn(NamedTuple):
    """A function that stands for instructions of one machine."""

    name: str
    result: ir.Type
    arguments: list[ir.Type]

    portable: Callable[[Any, Any], Any]
    """Emits the same result by instructions that every machine has."""

    instructions: str
    """The body of the function with the machine's own, in LLVM's text; %0 is the first argument."""

    declarations: str
    """What the body calls."""

    def function(self, module: Any) -> Any:
        """Return the function in a module, which gets it if it has none yet."""
        function = cgutils.get_or_insert_function(
            module, ir.FunctionType(self.result, self.arguments), self.name
        )
        if function.is_declaration:
            function.linkage = "linkonce_odr"
            # `with_instructions` finds it by its name, so it must stay a function.
            function.attributes.add("noinline")
            builder = ir.IRBuilder(function.append_basic_block())
            builder.ret(self.portable(builder, function.args))
        return function


def with_instructions(code: str) -> str:
    """Return the text of a module with the machine's instructions in all stand-ins that it has."""
    for known in ALL:
        arguments = ", ".join(str(argument) for argument in known.arguments)
        own = (
            f"define internal {known.result} @{known.name}({arguments}) alwaysinline {{\nentry:\n"
            f"{known.instructions}\n}}\n{known.declarations}"
        )
        code = re.sub(
            rf"^define [^\n]*@{known.name}\(.*?^}}",
            lambda _, own=own: own,
            code,
            count=1,
            flags=re.DOTALL | re.MULTILINE,
        )
    return code


def add_neighbours(builder: Any, vector: Any) -> Any:
    """Emit a vector of half as many lanes, each the sum of two neighbours."""
    count = vector.type.count
    return builder.add(
        *(
            builder.shuffle_vector(
                vector,
                vector,
                ir.Constant(ir.VectorType(_I32, count // 2), list(range(first, count, 2))),
            )
            for first in (0, 1)
        )
    )


def _sum_of_fours(builder: Any, arguments: Any) -> Any:
    sums, *factors = arguments
    products = builder.mul(*(builder.sext(factor, _INTS) for factor in factors))
    return builder.add(sums, add_neighbours(builder, add_neighbours(builder, products)))


def _sum_of_twos(builder: Any, arguments: Any) -> Any:
    wide = ir.VectorType(_I32, 8)
    return add_neighbours(
        builder, builder.mul(*(builder.sext(factor, wide) for factor in arguments))
    )


def _lowest_bits(builder: Any, arguments: Any) -> Any:
    lanes = builder.icmp_signed("!=", arguments[0], ir.Constant(_INTS, [0] * 16))
    return builder.bitcast(lanes, _I16)


SDOT = StandIn(
    "sanderling_sdot",
    _SUMS,
    [_SUMS, _BYTES, _BYTES],
    _sum_of_fours,
    """  %done = call <4 x i32> @llvm.aarch64.neon.sdot.v4i32.v16i8(
      <4 x i32> %0, <16 x i8> %1, <16 x i8> %2)
  ret <4 x i32> %done""",
    "declare <4 x i32> @llvm.aarch64.neon.sdot.v4i32.v16i8(<4 x i32>, <16 x i8>, <16 x i8>)",
)
"""ARM's dot product of bytes: four products added to each of four sums."""

PAIRS = StandIn(
    "sanderling_pairs",
    _SUMS,
    [_SHORTS, _SHORTS],
    _sum_of_twos,
    """  %done = call <4 x i32> @llvm.wasm.dot(<8 x i16> %0, <8 x i16> %1)
  ret <4 x i32> %done""",
    "declare <4 x i32> @llvm.wasm.dot(<8 x i16>, <8 x i16>)",
)
"""WebAssembly's `i32x4.dot_i16x8_s`: the sums of two products each."""

BITMASK = StandIn(
    "sanderling_bitmask",
    _I16,
    [_INTS],
    _lowest_bits,
    # LLVM 22 cannot turn a comparison of sixteen lanes into bits for WebAssembly by itself.
    """  %a = shufflevector <16 x i32> %0, <16 x i32> poison, <4 x i32> <i32 0, i32 1, i32 2, i32 3>
  %b = shufflevector <16 x i32> %0, <16 x i32> poison, <4 x i32> <i32 4, i32 5, i32 6, i32 7>
  %c = shufflevector <16 x i32> %0, <16 x i32> poison, <4 x i32> <i32 8, i32 9, i32 10, i32 11>
  %d = shufflevector <16 x i32> %0, <16 x i32> poison, <4 x i32> <i32 12, i32 13, i32 14, i32 15>
  %ab = call <8 x i16> @llvm.wasm.narrow.signed.v8i16.v4i32(<4 x i32> %a, <4 x i32> %b)
  %cd = call <8 x i16> @llvm.wasm.narrow.signed.v8i16.v4i32(<4 x i32> %c, <4 x i32> %d)
  %abcd = call <16 x i8> @llvm.wasm.narrow.signed.v16i8.v8i16(<8 x i16> %ab, <8 x i16> %cd)
  %bits = call i32 @llvm.wasm.bitmask.v16i8(<16 x i8> %abcd)
  %done = trunc i32 %bits to i16
  ret i16 %done""",
    """declare <8 x i16> @llvm.wasm.narrow.signed.v8i16.v4i32(<4 x i32>, <4 x i32>)
declare <16 x i8> @llvm.wasm.narrow.signed.v16i8.v8i16(<8 x i16>, <8 x i16>)
declare i32 @llvm.wasm.bitmask.v16i8(<16 x i8>)""",
)
"""Bit i of the result is set if lane i, which is 0 or -1, is not 0."""

ALL = (SDOT, PAIRS, BITMASK)
