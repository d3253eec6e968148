"""An answer that another thread will give, for which a signal handler may wait amid a wait for another one.

`concurrent.futures.Future` keeps its lock while it prepares to wait: a handler that comes then, and waits for the same
thread, holds up the thread that it waits for.
"""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Future(Generic[T]):
    """Answered once, by `set_result` or `set_exception`."""

    _value: T

    def __init__(self) -> None:
        self._error: Exception | None = None
        self._open = threading.Lock()
        self._open.acquire()

    def set_result(self, value: T) -> None:
        """Answer with a value."""
        self._value = value
        self._open.release()

    def set_exception(self, error: Exception) -> None:
        """Answer with an error."""
        self._error = error
        self._open.release()

    def result(self, timeout_s: float) -> T:
        """Return the value or raise the error; raise `TimeoutError` when there is no answer in time."""
        if not self._open.acquire(timeout=max(0.0, timeout_s)):
            raise TimeoutError
        self._open.release()
        if self._error is not None:
            raise self._error
        return self._value
