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
from sanderling.kernels.layout import LANES, ceil_div
from sanderling.ranking.index import Int8Index
from sanderling.ranking.numpy_user_model import user_weights
from sanderling.ranking.quantization import quantize_rows
from sanderling.ranking.user_model import UserModel, filled_up
from tests.support.kernel_problems import KINDS, POLICIES, events, policy

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


@pytest.fixture(scope="module", params=["dotprod", "plain"])
def run_on_arm(request, tmp_path_factory):
    """Runs a harness in C with one kind of kernels for aarch64, emulated, on a problem in bytes."""
    if not ARM:
        pytest.skip("needs numba, ziglang and qemu-aarch64")
    folder = tmp_path_factory.mktemp("arm")
    kernels = folder / "kernels.o"
    subprocess.run([sys.executable, "-c", BUILD, request.param, str(kernels)], check=True)

    def run(harness: str, problem: bytes) -> bytes:
        program = folder / harness
        if not program.exists():
            source = Path(__file__).with_name(f"{harness}.c")
            zig = [sys.executable, "-m", "ziglang", "cc", "-target", "aarch64-linux-musl"]
            command = [*zig, "-static", "-o", str(program), str(source), str(kernels)]
            subprocess.run(command, check=True)
        (folder / "problem").write_bytes(problem)
        command = ["qemu-aarch64", "-cpu", "max", str(program), str(folder / "problem")]
        return subprocess.run(command, capture_output=True, check=True).stdout

    return run


@pytest.mark.parametrize(("n", "d", "k", "bits"), [(20_000, 64, 10, 4), (3_001, 37, 100, 7)])
def test_kernels_for_arm_are_exact(run_on_arm, n, d, k, bits):
    """Built for aarch64 and emulated, the kernels return the rows and scores of numpy here."""
    rng = np.random.default_rng(n)
    rows, scale = quantize_rows(rng.standard_normal((n, d)).astype(np.float32))
    bias = rng.standard_normal(n).astype(np.float32)
    query = rng.standard_normal(d).astype(np.float32)
    sizes = np.array([n, d, k, bits], np.int64)
    problem = b"".join(part.tobytes() for part in (sizes, rows, scale, bias, query))
    result = np.frombuffer(
        run_on_arm("kernels_harness", problem), [("row", np.int64), ("score", np.float64)]
    )
    expected = Int8Index(rows, scale, bias, "numpy").top(query, k)
    assert result["row"].tolist() == expected.rows.tolist()
    assert result["score"].tolist() == expected.scores.tolist()


@pytest.mark.parametrize(("d", "c", "m", "t"), POLICIES)
def test_states_on_arm_have_the_bits_of_numpy(run_on_arm, d, c, m, t):
    """Built for aarch64, where compilers fuse products and sums unless they are told not to."""
    tensors = policy(d, c, m, t)
    weights = user_weights(tensors)
    arrays = [filled_up(weights.input), weights.kinds, weights.decay, weights.gain]
    arrays += [filled_up(weights.w1), weights.b1, filled_up(weights.w2), weights.b2]
    arrays += [filled_up(weights.context)]
    model = UserModel(tensors, KINDS, "numpy")
    state = model.initial_state()
    for item, _, context in events(d, t, 12):
        given = np.zeros(t, np.float32) if context is None else context
        width = ceil_div(max(d, c, m), LANES) * LANES
        parts = [np.array([d, c, m, t, width], np.int64).tobytes()]
        for array in (*arrays, state, item, given):
            parts += [np.int64(array.size).tobytes(), array.tobytes()]
        state = model.step(state, item, KINDS[1])
        user = model.user_vector(state, given)
        answer = run_on_arm("user_model_harness", b"".join(parts))
        assert answer == state.tobytes() + user.tobytes()


def test_numpy_runs_where_nothing_is_compiled(monkeypatch):
    """Without a library and without numba no kernels are chosen, so that numpy searches."""
    for load in ("compiled", "numba"):
        monkeypatch.setattr(loader, load, lambda: (_ for _ in ()).throw(ImportError("absent")))
    monkeypatch.delenv("SANDERLING_KERNELS", raising=False)
    assert loader.chosen.__wrapped__() is None
