"""The kernels as libraries: without numba, and for other processors."""

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
from sanderling.kernels import build
Path(sys.argv[2]).write_bytes(build.object_code("aarch64", sys.argv[1]))
"""


SEARCH_AND_DRAW = """
import sys
import numpy as np
from sanderling.exploration.philox import uniforms
from sanderling.kernels.loader import chosen
from sanderling.ranking.index import Int8Index
ones = np.ones(3, np.float32)
Int8Index(np.ones((3, 2), np.int8), ones, ones, "compiled").top(ones[:2], 2)
uniforms("0" * 32, 2)
print(chosen().source, {"numba", "llvmlite"} & set(sys.modules))
"""


@pytest.mark.skipif(
    not loader.path(cpu.machine(), cpu.kind()).exists(), reason="no library was built here"
)
def test_the_library_runs_without_numba():
    """Searching and drawing by the compiled kernels loads neither numba nor llvmlite."""
    result = subprocess.run(
        [sys.executable, "-c", SEARCH_AND_DRAW], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["compiled", "set()"]


@pytest.mark.skipif(not ARM, reason="needs numba, ziglang and qemu-aarch64")
@pytest.mark.parametrize("kind", ["dotprod", "plain"])
@pytest.mark.parametrize(("n", "d", "k", "bits"), [(20_000, 64, 10, 4), (3_001, 37, 100, 7)])
def test_kernels_for_arm_are_exact(tmp_path, kind, n, d, k, bits):
    """Built for aarch64 and emulated, the kernels return the rows and scores of numpy here."""
    rng = np.random.default_rng(n)
    rows, scale = quantize_rows(rng.standard_normal((n, d)).astype(np.float32))
    bias = rng.standard_normal(n).astype(np.float32)
    query = rng.standard_normal(d).astype(np.float32)
    program = tmp_path / "program"
    problem = tmp_path / "problem"
    kernels = tmp_path / "kernels.o"
    subprocess.run([sys.executable, "-c", BUILD, kind, str(kernels)], check=True)
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl", "-static"]
    subprocess.run([*zig, "-o", str(program), str(HARNESS), str(kernels)], check=True)

    sizes = np.array([n, d, k, bits], np.int64)
    problem.write_bytes(b"".join(part.tobytes() for part in (sizes, rows, scale, bias, query)))
    run = subprocess.run(
        ["qemu-aarch64", "-cpu", "max", str(program), str(problem)], capture_output=True, check=True
    )
    result = np.frombuffer(run.stdout, [("row", np.int64), ("score", np.float64)])
    expected = Int8Index(rows, scale, bias, "numpy").top(query, k)
    assert result["row"].tolist() == expected.rows.tolist()
    assert result["score"].tolist() == expected.scores.tolist()


def test_numpy_runs_where_nothing_is_compiled(monkeypatch):
    """Without a library and without numba no kernels are chosen, so that numpy searches."""
    for load in ("compiled", "numba"):
        monkeypatch.setattr(loader, load, lambda: (_ for _ in ()).throw(ImportError("absent")))
    monkeypatch.delenv("SANDERLING_KERNELS", raising=False)
    assert loader.chosen.__wrapped__() is None
