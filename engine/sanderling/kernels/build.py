"""Compiles the kernels into shared libraries, one for each kind of processor (`cpu.KINDS`).

numba makes LLVM's intermediate code, llvmlite an object file for the chosen processor, and a C
compiler links it.

    python -m sanderling.kernels.build [--machine aarch64]
                                       [--linker "zig cc -target aarch64-linux-gnu"]
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sanderling.kernels import cpu, loader

LIBRARIES = ("x86_64", "aarch64")  # machines with libraries; `build_wasm` makes a module
ENTRY_POINTS = (
    "sanderling_pack",
    "sanderling_scan",
    "sanderling_uniforms",
    "sanderling_step",
    "sanderling_user_vector",
)


class System(NamedTuple):
    """What a machine's code is made for, beside the processor."""

    triple: str
    relocation: str

    entry_point: Callable[[str, object], str]
    """Returns the code of an exported function of some name, for a kernel."""

    functions: str = ""
    """The code of what the kernels would otherwise import."""


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


def _short_entry_point(name: str, kernel: object) -> str:
    """Return the same with arguments of 32 bits; JavaScript has no other integers but BigInt.

    Halves of an id come in two parts, the higher first.
    """
    whole = _entry_point(f"{name}_whole", kernel)
    halves = 2 if name == "sanderling_uniforms" else 0
    arguments = ", ".join(f"i32 %a{i}" for i in range(6))
    widened = "\n".join(f"  %w{i} = zext i32 %a{i} to i64" for i in range(6))
    joined = "".join(
        f"""
  %h{i} = shl i64 %w{2 * i}, 32
  %j{i} = or i64 %h{i}, %w{2 * i + 1}"""
        for i in range(halves)
    )
    names = [f"%j{i}" for i in range(halves)] + [f"%w{i}" for i in range(2 * halves, 6)]
    passed = ", ".join(f"i64 {argument}" for argument in names + ["0"] * (6 - len(names)))
    return f"""{whole}
define i32 @{name}({arguments}) {{
{widened}{joined}
  %value = call i64 @{name}_whole({passed})
  %short = trunc i64 %value to i32
  ret i32 %short
}}
"""


# WebAssembly has no library of mathematics, but an instruction for square roots.
_ROOTS = """
define double @sqrt(double %x) {
  %root = call double @llvm.sqrt.f64(double %x)
  ret double %root
}
define float @sqrtf(float %x) {
  %root = call float @llvm.sqrt.f32(float %x)
  ret float %root
}
declare double @llvm.sqrt.f64(double)
declare float @llvm.sqrt.f32(float)
"""

SYSTEMS = {
    "x86_64": System("x86_64-unknown-linux-gnu", "pic", _entry_point),
    "aarch64": System("aarch64-unknown-linux-gnu", "pic", _entry_point),
    "wasm32": System("wasm32-unknown-unknown", "static", _short_entry_point, _ROOTS),
}


def main() -> None:
    """Build the libraries of one machine, each kind in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", choices=LIBRARIES, default=cpu.machine())
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
    from sanderling.kernels import block_scan, pack_rows, philox, user_model
    from sanderling.kernels.stand_ins import with_instructions

    processor, features = next(
        (known.processor, known.features) for known in cpu.KINDS[machine] if known.name == kind
    )
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    system = SYSTEMS[machine]
    target = llvm.Target.from_triple(system.triple).create_target_machine(
        cpu=processor, features=features, opt=3, reloc=system.relocation, codemodel="small"
    )
    module = llvm.parse_assembly(system.functions)
    module.triple, module.data_layout = system.triple, str(target.target_data)
    kernels = (
        pack_rows.pack,
        block_scan.scan,
        philox.fill_uniforms,
        user_model.step,
        user_model.user_vector,
    )
    for name, kernel in zip(ENTRY_POINTS, kernels, strict=True):
        code = with_instructions(kernel._library.get_llvm_str())
        part = llvm.parse_assembly(code + system.entry_point(name, kernel))
        part.triple, part.data_layout = module.triple, module.data_layout
        module.link_in(part)
    for symbol in (*module.functions, *module.global_variables):
        if not symbol.is_declaration and symbol.name not in ENTRY_POINTS:
            symbol.linkage = "internal"
    passes = llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options(speed_level=3))
    manager = passes.getModulePassManager()
    manager.add_always_inliner_pass()
    manager.add_global_dead_code_eliminate_pass()
    manager.run(module, passes)
    return bytes(target.emit_object(module))


if __name__ == "__main__":
    main()
