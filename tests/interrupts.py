"""What a signal handler does amid a call, at every line of it: by the debugger's hook, without signals and chance."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import _base
from types import FrameType
from typing import Any

import sanderling

OURS = (sanderling.__path__[0], threading.__file__, _base.__file__)


def amid(call: Callable[[], object], handler: Callable[[], object], line: int) -> bool:
    """Run `call`, with `handler` before the `line`-th line that it comes to; tell whether it came so far."""
    left = line

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        left -= 1
        if left == 0:
            sys.settrace(None)
            handler()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return left <= 0


def amid_each_line(call: Callable[[], object], handler: Callable[[], object], seconds: float = 60.0) -> int:
    """Do so at each line of `call`, which is called as often; return how many there were, or fail after some time."""
    lines, faults = 0, []

    def run() -> None:
        nonlocal lines
        try:
            while amid(call, handler, lines + 1):
                lines += 1
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"expected every call to end, found one that hangs, interrupted at line {lines + 1}"
    for fault in faults:
        raise fault
    return lines
