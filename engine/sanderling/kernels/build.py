"""Compile the kernels into shared libraries that run without numba: one for each kind of processor (`cpu.KINDS`).

numba makes LLVM's intermediate code, llvmlite an object file for the processor asked for, and a C compiler links it.

    python -m sanderling.kernels.build [--machine aarch64] [--linker "zig cc -target aarch64-linux-gnu"]
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

ENTRIES = ("sanderling_pack", "sanderling_scan", "sanderling_draws")


def main() -> None:
    """Build the libraries of one machine, each kind in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", choices=list(cpu.KINDS), default=cpu.machine())
    parser.add_argument("--linker", default="cc")
    parser.add_argument("--kind", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.kind:
        build(chosen.machine, chosen.kind, shlex.split(chosen.linker))
        return
    for kind, _, processor, features in cpu.KINDS[chosen.machine]:
        options = ["--machine", chosen.machine, "--linker", chosen.linker, "--kind", kind]
        settings = _as_if_on(processor, features) if chosen.machine == cpu.machine() else {}
        command = [sys.executable, "-m", "sanderling.kernels.build", *options]
        subprocess.run(command, check=True, env={**os.environ, **settings})


def _as_if_on(processor: str, features: str) -> dict[str, str]:
    """Return what lets numba compile for a processor that this one need not be: it loads the code but never runs it."""
    return {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}


def build(machine: str, kind: str, linker: list[str]) -> None:
    """Compile one kind of kernels, and link them. What is loaded of numba's kernels is of this kind afterwards."""
    cpu.forced = kind
    processor, features = next(target[2:] for target in cpu.KINDS[machine] if target[0] == kind)
    path = loader.path(machine, kind)
    for older in loader.HERE.glob(f"linux-{machine}-{kind}-*.so"):
        older.unlink()
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "kernels.o"
        made.write_bytes(_object(machine, processor, features))
        subprocess.run(
            [*linker, "-shared", "-nostdlib", "-s", "-o", str(path), str(made)], check=True
        )
    print(f"{path.name}: {path.stat().st_size} bytes", flush=True)


def _object(machine: str, processor: str, features: str) -> bytes:
    import llvmlite.binding as llvm

    from sanderling.kernels import block_scan, pack_rows, philox

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple = f"{machine}-unknown-linux-gnu"
    target = llvm.Target.from_triple(triple).create_target_machine(
        cpu=processor, features=features, opt=3, reloc="pic", codemodel="small"
    )
    module = llvm.parse_assembly("")
    module.triple, module.data_layout = triple, str(target.target_data)
    for name, kernel in zip(ENTRIES, (pack_rows.pack, block_scan.scan, philox.draws), strict=True):
        part = llvm.parse_assembly(
            _with_instruction(kernel._library.get_llvm_str()) + _entry(name, kernel)
        )
        part.triple, part.data_layout = module.triple, module.data_layout
        module.link_in(part)
    for function in module.functions:
        if not function.is_declaration and function.name not in ENTRIES:
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


def _entry(name: str, kernel: object) -> str:
    """Return the code of a plain function of six int64 around numba's own, which hands its result to an address."""
    numbas = kernel._wrapper_name.removeprefix("cfunc.")  # type: ignore[attr-defined]
    given = ", ".join(f"i64 %a{at}" for at in range(6))
    return f"""
define i64 @{name}({given}) {{
  %result = alloca i64
  %error = alloca ptr
  %status = call i32 @{numbas}(ptr %result, ptr %error, {given})
  %value = load i64, ptr %result
  ret i64 %value
}}
"""


if __name__ == "__main__":
    main()
