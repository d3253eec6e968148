"""From a policy checkpoint to a sealed bundle. Reads checkpoints as files, without the trainer."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sanderling_quantize.api import quantize
    from sanderling_quantize.build_bundle import BuildResult
    from sanderling_quantize.gate import GateError

# onnxruntime reads it when it is imported, by Optimum too: it would report to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["BuildResult", "GateError", "quantize"]

_LAZY = {
    "BuildResult": "sanderling_quantize.build_bundle",
    "GateError": "sanderling_quantize.gate",
    "quantize": "sanderling_quantize.api",
}


def __getattr__(name: str) -> Any:
    # Looked up on first use: importing the package must not load torch.
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
