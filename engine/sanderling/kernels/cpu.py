"""Which kinds of kernels exist, and which of them this processor can run."""

from __future__ import annotations

import platform
from importlib import import_module
from typing import NamedTuple

_V3 = {"AVX2", "FMA3", "F16C"}
_V4 = _V3 | {"AVX512F", "AVX512CD", "AVX512BW", "AVX512DQ", "AVX512VL"}


class Kind(NamedTuple):
    """One kind of kernels: what it needs of a processor, and what it is compiled for."""

    name: str

    needs: set[str]
    """Features, as numpy names them."""

    processor: str
    """LLVM's name of the processor to compile for."""

    features: str
    """LLVM's features to compile for."""


KINDS: dict[str, list[Kind]] = {  # by machine, best first
    "x86_64": [
        Kind("vnni", _V4 | {"AVX512VNNI"}, "x86-64-v4", "+avx512vnni,-prefer-256-bit"),
        Kind("avx2", _V3, "x86-64-v3", ""),
        Kind("plain", set(), "x86-64-v2", ""),
    ],
    "aarch64": [
        Kind("dotprod", {"ASIMDDP"}, "generic", "+dotprod"),
        Kind("plain", set(), "generic", ""),
    ],
    # for browsers; Python does not run on it
    "wasm32": [Kind("simd128", set(), "generic", "+simd128,+bulk-memory")],
}
# The kind that `build` compiles; this processor need not be able to run it.
forced: str | None = None


def machine() -> str:
    """Return the name of this kind of processor."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def features() -> set[str]:
    """Return the features that numpy found in this processor."""
    # numpy 1 has the module under its older name.
    try:
        umath = import_module("numpy._core._multiarray_umath")
    except ImportError:
        umath = import_module("numpy.core._multiarray_umath")
    return {name for name, has in umath.__cpu_features__.items() if has}


def kinds() -> list[str]:
    """Return the kinds of kernels that this processor can run, best first."""
    available = features()
    return [kind.name for kind in KINDS.get(machine(), []) if kind.needs <= available] or ["plain"]


def kind() -> str:
    """Return the kind to compile: `forced`, else the best that this processor can run."""
    return forced or kinds()[0]
