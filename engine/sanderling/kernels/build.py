"""Compiles the kernels into shared libraries, one for each kind of processor (`cpu.KINDS`).

numba makes LLVM's intermediate code, llvmlite an object file for the chosen processor, and a C
compiler links it.

    python -m sanderling.kernels.build [--machine aarch64]
                                       [--linker "zig cc -target aarch64-linux-gnu"]
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from sanderling.kernels import cpu, loader
from sanderling.kernels.layout import SDOT

ENTRY_POINTS = ("sanderling_pack", "sanderling_scan", "sanderling_uniforms")


def main() -> None:
    """Build the libraries of one machine, each kind in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", choices=list(cpu.KINDS), default=cpu.machine())
    parser.add_argument("--linker", default="cc")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        build(arguments.machine, arguments.kind, shlex.split(arguments.linker))
        return
    for kind in cpu.KINDS[arguments.machine]:
        options = [
            "--machine",
            arguments.machine,
            "--linker",
            arguments.linker,
            "--kind",
            kind.name,
        ]
        settings = _numba_settings(kind) if arguments.machine == cpu.machine() else {}
        command = [sys.executable, "-m", "sanderling.kernels.build", *options]
        subprocess.run(command, check=True, env={**os.environ, **settings})


def _numba_settings(kind: cpu.Kind) -> dict[str, str]:
    """Return the environment in which numba compiles for a kind, without running the code."""
    return {"NUMBA_CPU_NAME": kind.processor, "NUMBA_CPU_FEATURES": kind.features}


def build(machine: str, kind: str, linker: list[str]) -> None:
    """Compile and link one kind of kernels, in place of an older library of that kind."""
    path = loader.path(machine, kind)
    for older in loader.FOLDER.glob(f"linux-{machine}-{kind}-*.so"):
        older.unlink()
    with tempfile.TemporaryDirectory() as folder:
        object_file = Path(folder) / "kernels.o"
        object_file.write_bytes(object_code(machine, kind))
        subprocess.run(
            [*linker, "-shared", "-nostdlib", "-s", "-o", str(path), str(object_file)], check=True
        )
    print(f"{path.name}: {path.stat().st_size} bytes", flush=True)


def object_code(machine: str, kind: str) -> bytes:
    """Return the object file of one kind of kernels, for this machine or another.

    The kernels' modules are imported for this kind: a process can build only one.
    """
    import llvmlite.binding as llvm

    cpu.forced = kind  # before the kernels are imported: they choose their instructions by it
    from sanderling.kernels import block_scan, pack_rows, philox

    processor, features = next(
        (known.processor, known.features) for known in cpu.KINDS[machine] if known.name == kind
    )
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple = f"{machine}-unknown-linux-gnu"
    target = llvm.Target.from_triple(triple).create_target_machine(
        cpu=processor, features=features, opt=3, reloc="pic", codemodel="small"
    )
    module = llvm.parse_assembly("")
    module.triple, module.data_layout = triple, str(target.target_data)
    kernels = (pack_rows.pack, block_scan.scan, philox.fill_uniforms)
    for name, kernel in zip(ENTRY_POINTS, kernels, strict=True):
        code = _with_instruction(kernel._library.get_llvm_str())
        part = llvm.parse_assembly(code + _entry_point(name, kernel))
        part.triple, part.data_layout = module.triple, module.data_layout
        module.link_in(part)
    for function in module.functions:
        if not function.is_declaration and function.name not in ENTRY_POINTS:
            function.linkage = "internal"
    passes = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=3))
    manager = passes.getModulePassManager()
    manager.add_always_inliner_pass()
    manager.add_global_dead_code_eliminate_pass()
    manager.run(module, passes)
    return bytes(target.emit_object(module))


def _with_instruction(code: str) -> str:
    """Return the code with ARM's instruction as the body of `SDOT`, where it is used."""
    arguments = "<4 x i32> %sums, <16 x i8> %rows, <16 x i8> %query"
    instruction = f"""define internal <4 x i32> @{SDOT}({arguments}) alwaysinline {{
  %added = call <4 x i32> @llvm.aarch64.neon.sdot.v4i32.v16i8({arguments})
  ret <4 x i32> %added
}}
declare <4 x i32> @llvm.aarch64.neon.sdot.v4i32.v16i8(<4 x i32>, <16 x i8>, <16 x i8>)"""
    return re.sub(
        rf"^define [^\n]*@{SDOT}\(.*?^}}",
        instruction,
        code,
        count=1,
        flags=re.DOTALL | re.MULTILINE,
    )


def _entry_point(name: str, kernel: object) -> str:
    """Return the code of a function that returns what numba's own writes to an address."""
    inner = kernel._wrapper_name.removeprefix("cfunc.")  # type: ignore[attr-defined]
    arguments = ", ".join(f"i64 %a{i}" for i in range(6))
    return f"""
define i64 @{name}({arguments}) {{
  %result = alloca i64
  %error = alloca ptr
  %status = call i32 @{inner}(ptr %result, ptr %error, {arguments})
  %value = load i64, ptr %result
  ret i64 %value
}}
"""


if __name__ == "__main__":
    main()
