"""Sanderling's engine: a recommender that thinks on the device.

Importing this is cheap; onnxruntime, tokenizers and numba are loaded when they are first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sanderling.errors import (
    BundleError,
    EventError,
    SanderlingError,
    StorageError,
    TableError,
    UpdateError,
)
from sanderling.version import __version__ as __version__

if TYPE_CHECKING:
    from sanderling.engine import Engine
    from sanderling.slate import Explanation, Receipt, Slate, SlateItem


__all__ = [
    "BundleError",
    "Engine",
    "EventError",
    "Explanation",
    "Receipt",
    "SanderlingError",
    "Slate",
    "SlateItem",
    "StorageError",
    "TableError",
    "UpdateError",
]


def __getattr__(name: str) -> Any:
    if name == "Engine":
        from sanderling.engine import Engine

        return Engine
    if name in ("Explanation", "Receipt", "Slate", "SlateItem"):
        from sanderling import slate

        return getattr(slate, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
