"""The kernels as libraries: they need no numba, and one built for another processor gives the same answers there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from sanderling.kernels import cpu, loader
from sanderling.ranking.index import Int8Index
from sanderling.ranking.quantization import quantize_rows

HARNESS = Path(__file__).with_name("kernels_harness.c")
ARM = (
    find_spec("ziglang") is not None
    and find_spec("numba") is not None
    and shutil.which("qemu-aarch64") is not None
)
BUILD = """
import sys
from pathlib import Path
from sanderling.kernels import build, cpu
kind = sys.argv[1]
cpu.forced = kind
processor, features = next(target[2:] for target in cpu.KINDS["aarch64"] if target[0] == kind)
Path(sys.argv[2]).write_bytes(build._object("aarch64", processor, features))
"""


@pytest.mark.skipif(
    not loader.path(cpu.machine(), cpu.kind()).exists(), reason="no library was built here"
)
def test_the_library_runs_without_numba():
    """Searching and drawing by the compiled kernels loads neither numba nor llvmlite."""
    code = (
        "import sys, numpy as np; from sanderling import topk, philox; one = np.ones(3, np.float32);"
        "topk.Table(np.ones((3, 2), np.int8), one, one, 'compiled').top(one[:2], 2); philox.uniforms('0' * 32, 2);"
        "from sanderling.kernels.loader import chosen;"
        "print(chosen().source, {'numba', 'llvmlite'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["compiled", "set()"]


@pytest.mark.skipif(not ARM, reason="needs numba, ziglang and qemu-aarch64")
@pytest.mark.parametrize("kind", ["dotprod", "plain"])
@pytest.mark.parametrize(("n", "d", "k", "bits"), [(20_000, 64, 10, 4), (3_001, 37, 100, 7)])
def test_kernels_for_arm_are_exact(tmp_path, kind, n, d, k, bits):
    """Built for aarch64 and run by an emulator, the kernels find the rows and scores that numpy finds here."""
    rng = np.random.default_rng(n)
    rows, scale = quantize_rows(rng.standard_normal((n, d)).astype(np.float32))
    bias, query = (
        rng.standard_normal(n).astype(np.float32),
        rng.standard_normal(d).astype(np.float32),
    )
    program, problem = tmp_path / "program", tmp_path / "problem"
    subprocess.run([sys.executable, "-c", BUILD, kind, str(tmp_path / "kernels.o")], check=True)
    zig = [
        sys.executable,
        "-m",
        "ziglang",
        "cc",
        "-target",
        "aarch64-linux-musl",
        "-static",
        "-o",
        str(program),
    ]
    subprocess.run([*zig, str(HARNESS), str(tmp_path / "kernels.o")], check=True)
    sizes = np.array([n, d, k, bits], np.int64)
    problem.write_bytes(b"".join(part.tobytes() for part in (sizes, rows, scale, bias, query)))
    answer = subprocess.run(
        ["qemu-aarch64", "-cpu", "max", str(program), str(problem)], capture_output=True, check=True
    )
    found = np.frombuffer(answer.stdout, [("row", np.int64), ("score", np.float64)])
    expected = Int8Index(rows, scale, bias, "numpy").top(query, k)
    assert found["row"].tolist() == expected.rows.tolist()
    assert found["score"].tolist() == expected.scores.tolist()


def test_numpy_runs_where_nothing_is_compiled(monkeypatch):
    """Without a library and without numba the engine still searches, and says so by having no kernels."""
    for load in ("compiled", "numba"):
        monkeypatch.setattr(loader, load, lambda: (_ for _ in ()).throw(ImportError("absent")))
    monkeypatch.delenv("SANDERLING_KERNELS", raising=False)
    assert loader.chosen.__wrapped__() is None
