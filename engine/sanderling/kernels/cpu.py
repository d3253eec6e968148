"""Which kernels this processor can run. Refuses to know what they do."""

from __future__ import annotations

import platform
from importlib import import_module

# best first: name, the features it needs (as numpy names them), and LLVM's processor and features to compile it for
_V3 = {"AVX2", "FMA3", "F16C"}
_V4 = _V3 | {"AVX512F", "AVX512CD", "AVX512BW", "AVX512DQ", "AVX512VL"}
KINDS: dict[str, list[tuple[str, set[str], str, str]]] = {
    "x86_64": [
        ("vnni", _V4 | {"AVX512VNNI"}, "x86-64-v4", "+avx512vnni,-prefer-256-bit"),
        ("avx2", _V3, "x86-64-v3", ""),
        ("plain", set(), "x86-64-v2", ""),
    ],
    "aarch64": [("dotprod", {"ASIMDDP"}, "generic", "+dotprod"), ("plain", set(), "generic", "")],
}
forced: str | None = None  # the kind to compile for another processor than this one


def machine() -> str:
    """Return the name of this kind of processor."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def features() -> set[str]:
    """Return the features that numpy found in this processor."""
    try:
        umath = import_module("numpy._core._multiarray_umath")
    except ImportError:
        umath = import_module("numpy.core._multiarray_umath")
    return {name for name, has in umath.__cpu_features__.items() if has}


def kinds() -> list[str]:
    """Return the kinds of kernels that this processor can run, best first."""
    has = features()
    return [name for name, needs, _, _ in KINDS.get(machine(), []) if needs <= has] or ["plain"]


def kind() -> str:
    """Return the kind to compile: the best that this processor can run, unless another is forced."""
    return forced or kinds()[0]
