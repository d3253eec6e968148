"""Loads the kernels: a library built beforehand, else what numba compiles, else none."""

from __future__ import annotations

import ctypes
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import local
from typing import Any

from sanderling.kernels import cpu

FOLDER = Path(__file__).parent
SOURCES = ("compiled", "numba", "numpy")

Kernel = Callable[[int, int, int, int, int, int], int]
_WITHOUT_GIL = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 6)
_WITH_GIL = ctypes.PYFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 6)
MIN_BLOCKS = 64  # of a thread's buffer of uniforms


class _UniformsBuffer:
    """The memory into which the uniforms of one thread are written, reused from call to call."""

    def __init__(self, blocks: int) -> None:
        array = (ctypes.c_double * (2 * blocks))()
        self.blocks = blocks
        self.address = ctypes.addressof(array)
        self.numbers = memoryview(array).cast("B").cast("d")  # it keeps the array alive


_thread = local()


@dataclass(frozen=True)
class Kernels:
    """The entry points of one set of kernels.

    `short_scan` and those below hold the GIL: to take it again can last five milliseconds where
    another thread computes, far longer than they run. `pack` and `scan` release it.
    """

    source: str
    """`compiled` or `numba`."""

    kind: str
    """The kind of processor that they were compiled for (`cpu.KINDS`)."""

    pack: Kernel
    scan: Kernel
    short_scan: Kernel
    fill_uniforms: Kernel
    step: Kernel
    user_vector: Kernel

    owner: Any
    """What has to stay in memory as long as they may be called."""

    def uniforms(self, first: int, last: int, blocks: int) -> list[tuple[float, float]]:
        """Return two doubles in [0, 1) for each block; `first` and `last` are halves of the id."""
        buffer: _UniformsBuffer | None = getattr(_thread, "buffer", None)
        if buffer is None or buffer.blocks < blocks:
            buffer = _thread.buffer = _UniformsBuffer(max(blocks, MIN_BLOCKS))
        self.fill_uniforms(first, last, blocks, buffer.address, 0, 0)
        numbers = buffer.numbers[: 2 * blocks].tolist()
        return list(zip(numbers[::2], numbers[1::2], strict=True))


def path(machine: str, kind: str) -> Path:
    """Return the path of the library built from these sources for a kind; it need not exist."""
    return FOLDER / f"linux-{machine}-{kind}-{stamp()}.so"


@cache
def stamp() -> str:
    """Return eight hex digits that change with the kernels' sources.

    A library built from other sources may use another memory layout and write where it must not.
    """
    checksum = 0
    for source in sorted(FOLDER.glob("*.py")):
        checksum = zlib.crc32(source.read_bytes(), checksum)
    return f"{checksum:08x}"


def compiled() -> Kernels:
    """Return the best kernels built for this processor; raise `ImportError` if there are none."""
    reason = "no library was built for it"
    for kind in cpu.kinds():
        file = path(cpu.machine(), kind)
        if not file.exists():
            continue
        try:
            library = ctypes.CDLL(str(file))
        except OSError as error:
            reason = str(error)
            continue
        return Kernels(
            source="compiled",
            kind=kind,
            pack=_WITHOUT_GIL(("sanderling_pack", library)),
            scan=_WITHOUT_GIL(("sanderling_scan", library)),
            short_scan=_WITH_GIL(("sanderling_scan", library)),
            fill_uniforms=_WITH_GIL(("sanderling_uniforms", library)),
            step=_WITH_GIL(("sanderling_step", library)),
            user_vector=_WITH_GIL(("sanderling_user_vector", library)),
            owner=library,
        )
    raise ImportError(
        f"no compiled kernels for {cpu.machine()} ({', '.join(cpu.kinds())}): {reason}"
    )


def numba() -> Kernels:
    """Return kernels that numba compiles or has cached; raise `ImportError` without numba."""
    from sanderling.kernels.block_scan import scan
    from sanderling.kernels.pack_rows import pack
    from sanderling.kernels.philox import fill_uniforms
    from sanderling.kernels.user_model import step, user_vector

    return Kernels(
        source="numba",
        kind=cpu.kind(),
        pack=_WITHOUT_GIL(pack.address),
        scan=_WITHOUT_GIL(scan.address),
        short_scan=_WITH_GIL(scan.address),
        fill_uniforms=_WITH_GIL(fill_uniforms.address),
        step=_WITH_GIL(step.address),
        user_vector=_WITH_GIL(user_vector.address),
        owner=(pack, scan, fill_uniforms, step, user_vector),
    )


@cache
def chosen(source: str | None = None) -> Kernels | None:
    """Return the kernels to use, or None where numpy searches.

    They are those of `source`, else those of the environment variable `SANDERLING_KERNELS`, else
    the best that are installed. Raises `ValueError` for an unknown name, and `ImportError` where
    the named kernels are missing.
    """
    wanted = source or os.environ.get("SANDERLING_KERNELS") or None
    if wanted not in (None, *SOURCES):
        raise ValueError(
            f"SANDERLING_KERNELS: expected one of {', '.join(SOURCES)}, found {wanted!r}"
        )
    for name, load in (("compiled", compiled), ("numba", numba)):
        if wanted == name:
            return load()
        if wanted is None:
            with suppress(ImportError):
                return load()
    return None
