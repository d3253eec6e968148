"""What a signal handler does amid a call, wherever it may come: by the profiler's hook, without signals and chance."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import _base
from types import FrameType

import sanderling

OURS = (sanderling.__path__[0], threading.__file__, _base.__file__)
GAPS = ("call", "c_return")


def amid(call: Callable[[], object], handler: Callable[[], object], gap: int) -> bool:
    """Run `call`, and `handler` in the `gap`-th gap; tell whether there are so many.

    The interpreter looks for signals where a function begins, and where one that is not of Python has ended.
    """
    left = gap

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        if event in GAPS and frame.f_code.co_filename.startswith(OURS):
            left -= 1
            if left == 0:
                sys.setprofile(None)
                handler()

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return left <= 0


def amid_each_gap(call: Callable[[], object], handler: Callable[[], object], seconds: float = 60.0) -> int:
    """Do so in each gap of `call`, which is called as often; return how many there were, or fail after some time."""
    gaps, faults = 0, []

    def run() -> None:
        nonlocal gaps
        try:
            while amid(call, handler, gaps + 1):
                gaps += 1
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"expected every call to end, found one that hangs, interrupted in gap {gaps + 1}"
    for fault in faults:
        raise fault
    return gaps
