"""Compiles the kernels into one WebAssembly module, for browsers and Node.

    python -m sanderling.kernels.build_wasm [--linker "python -m ziglang wasm-ld"] PATH

It has vectors of 128 bits (SIMD128, not the relaxed kind), imports nothing, and takes addresses of
its own memory as 32-bit integers, so that JavaScript needs no BigInt.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from sanderling.kernels import build, cpu

MACHINE = "wasm32"
KIND = cpu.KINDS[MACHINE][0]

# numba's code for the machine that builds must not depend on which one that is.
SETTINGS = {"NUMBA_CPU_NAME": "x86-64-v2", "NUMBA_CPU_FEATURES": ""}

LINKING = ["--no-entry", "--strip-all", "--stack-first", "-z", "stack-size=65536", "--gc-sections"]


def main() -> None:
    """Build the module, in a process that compiles for a plain machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--linker", default=f"{sys.executable} -m ziglang wasm-ld")
    arguments = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in SETTINGS.items()):
        command = [sys.executable, "-m", "sanderling.kernels.build_wasm", *sys.argv[1:]]
        subprocess.run(command, check=True, env={**os.environ, **SETTINGS})
        return
    write_module(arguments.path, shlex.split(arguments.linker))
    print(f"{arguments.path}: {arguments.path.stat().st_size} bytes", flush=True)


def write_module(path: Path, linker: list[str]) -> None:
    """Compile and link the module; the process must have the environment of `SETTINGS`."""
    exports = [f"--export={name}" for name in (*build.ENTRY_POINTS, "__heap_base")]
    with tempfile.TemporaryDirectory() as folder:
        object_file = Path(folder) / "kernels.o"
        object_file.write_bytes(build.object_code(MACHINE, KIND.name))
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([*linker, *LINKING, *exports, "-o", str(path), str(object_file)], check=True)


if __name__ == "__main__":
    main()
