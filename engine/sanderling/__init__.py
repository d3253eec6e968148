"""An on-device recommender that ranks, explores and adapts inside the app.

Importing it is cheap: onnxruntime, tokenizers and numba are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
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
    from sanderling.options import EngineOptions
    from sanderling.reasons import Reasons
    from sanderling.runtime.child_process import run_child
    from sanderling.slate import Explanation, FoundItem, FoundItems, Receipt, Slate, SlateItem


__all__ = [
    "BundleError",
    "Engine",
    "EngineOptions",
    "EventError",
    "Explanation",
    "FoundItem",
    "FoundItems",
    "Reasons",
    "Receipt",
    "SanderlingError",
    "Slate",
    "SlateItem",
    "StorageError",
    "TableError",
    "UpdateError",
    "run_child",
]


_LAZY = {
    "Engine": "sanderling.engine",
    "EngineOptions": "sanderling.options",
    "Explanation": "sanderling.slate",
    "FoundItem": "sanderling.slate",
    "FoundItems": "sanderling.slate",
    "Reasons": "sanderling.reasons",
    "Receipt": "sanderling.slate",
    "Slate": "sanderling.slate",
    "SlateItem": "sanderling.slate",
    "run_child": "sanderling.runtime.child_process",
}


def __getattr__(name: str) -> Any:
    # Looked up on first use: importing an error class must not load numpy.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
