"""Puts the compiled kernels of one machine into a wheel, and its name into the wheel's tag."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "SANDERLING_WHEEL_MACHINE"

# The kernels need no library: of a C library they use memset alone (tests/test_wheels.py).
PLATFORM = "manylinux_2_17"


class KernelsHook(BuildHookInterface[Any]):
    """Without the variable the wheel is pure: it has no kernels and fits every machine."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Choose the kernels and the tag; raise `FileNotFoundError` if no kernels were built."""
        machine = os.environ.get(VARIABLE)
        if not machine:
            return
        kernels = f"sanderling/kernels/linux-{machine}-*.so"
        if not list(Path(self.root).glob(kernels)):
            raise FileNotFoundError(
                f"{VARIABLE}={machine}: expected {kernels} in {self.root}, found none; first run"
                f" python -m sanderling.kernels.build --machine {machine}"
            )
        build_data["artifacts"].append(f"/{kernels}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{PLATFORM}_{machine}"
