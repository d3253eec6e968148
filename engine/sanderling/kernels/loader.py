"""Where the kernels come from: a library built beforehand, or numba, or neither. Both are called by address.

Refuses to know what the kernels do.
"""

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

HERE = Path(__file__).parent
SOURCES = ("compiled", "numba", "numpy")

Kernel = Callable[[int, int, int, int, int, int], int]
_LETS_OTHERS_RUN = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 6)
_HOLDS_THE_LOCK = ctypes.PYFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 6)


class _Room:
    """The memory into which one thread's draws are written."""

    def __init__(self, blocks: int) -> None:
        array = (ctypes.c_double * (2 * blocks))()
        self.blocks, self.address, self.numbers = (
            blocks,
            ctypes.addressof(array),
            memoryview(array).cast("B").cast("d"),
        )


_own = local()


@dataclass(frozen=True)
class Kernels:
    """`pack`, `scan` and `draw`, what they were compiled for, and what keeps them in memory.

    `scan` and `pack` let other threads of Python run meanwhile. `short_scan` does not, nor does `draw`: to ask for
    Python's lock again can take five milliseconds, where another thread computes.
    """

    source: str
    kind: str
    pack: Kernel
    scan: Kernel
    short_scan: Kernel
    draw: Kernel
    owner: Any

    def draws(self, first: int, last: int, blocks: int) -> list[tuple[float, float]]:
        """Return the uniforms of each block of a decision, whose id's halves are 64-bit numbers."""
        room: _Room | None = getattr(_own, "room", None)
        if room is None or room.blocks < blocks:
            room = _own.room = _Room(max(blocks, 64))
        self.draw(first, last, blocks, room.address, 0, 0)
        numbers = room.numbers[: 2 * blocks].tolist()
        return list(zip(numbers[::2], numbers[1::2], strict=True))


def path(machine: str, kind: str) -> Path:
    """Return where the library of one kind of processor is, or would be, if it was built from these sources."""
    return HERE / f"linux-{machine}-{kind}-{stamp()}.so"


@cache
def stamp() -> str:
    """Return eight hex digits that change with the kernels' sources: a library of others would write elsewhere."""
    found = 0
    for source in sorted(HERE.glob("*.py")):
        found = zlib.crc32(source.read_bytes(), found)
    return f"{found:08x}"


def compiled() -> Kernels:
    """Return the best kernels built for this processor; raise `ImportError` where there are none."""
    failed = "no library was built for it"
    for kind in cpu.kinds():
        file = path(cpu.machine(), kind)
        if not file.exists():
            continue
        try:
            found = ctypes.CDLL(str(file))
        except OSError as error:
            failed = str(error)
            continue
        pack, scan = (_LETS_OTHERS_RUN((f"sanderling_{name}", found)) for name in ("pack", "scan"))
        short_scan, draws = (
            _HOLDS_THE_LOCK((f"sanderling_{name}", found)) for name in ("scan", "draws")
        )
        return Kernels("compiled", kind, pack, scan, short_scan, draws, found)
    raise ImportError(
        f"no compiled kernels for {cpu.machine()} ({', '.join(cpu.kinds())}): {failed}"
    )


def numba() -> Kernels:
    """Return kernels compiled now, or when they were last needed; raise `ImportError` where numba is not installed."""
    from sanderling.kernels.block_scan import scan
    from sanderling.kernels.pack_rows import pack
    from sanderling.kernels.philox import draws

    return Kernels(
        "numba",
        cpu.kind(),
        _LETS_OTHERS_RUN(pack.address),
        _LETS_OTHERS_RUN(scan.address),
        _HOLDS_THE_LOCK(scan.address),
        _HOLDS_THE_LOCK(draws.address),
        (pack, scan, draws),
    )


@cache
def chosen(source: str | None = None) -> Kernels | None:
    """Return the compiled kernels, or None for numpy: those asked for, or those of `SANDERLING_KERNELS`, or the best.

    Raises `ValueError` for an unknown name, and `ImportError` where the kernels that were asked for are missing.
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
