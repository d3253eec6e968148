"""The kernels as WebAssembly: the rows, scores, states and uniforms of Python, bit for bit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest

from sanderling.exploration.philox import plain_uniforms
from sanderling.kernels import cpu, layout
from sanderling.ranking.index import Int8Index
from sanderling.ranking.user_model import UserModel
from tests.support.kernel_problems import (
    KINDS,
    POLICIES,
    SIZES,
    events,
    found,
    policy,
    searches,
    table,
)
from tests.support.wasm_kernels import WasmIndex, WasmKernels, WasmUserModel

ROOT = Path(__file__).parent.parent.parent
MODULE = ROOT / "engine" / "js" / "wasm" / "sanderling.wasm"
LAYOUT = ROOT / "engine" / "js" / "src" / "kernels" / "layout.ts"
COMPILERS = ("numba", "llvmlite", "ziglang")


def missing_compilers() -> list[str]:
    """Return which of the compilers of constraints.txt this environment lacks."""
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
    missing = []
    for name in COMPILERS:
        try:
            if version(name) != pinned[name]:
                missing.append(name)
        except PackageNotFoundError:
            missing.append(name)
    return missing


@pytest.fixture(scope="module")
def kernels() -> WasmKernels:
    pytest.importorskip("wasmtime", reason="needs wasmtime")
    return WasmKernels(MODULE)


@pytest.mark.skipif(
    cpu.machine() != "x86_64" or bool(missing_compilers()),
    reason="needs an x86-64 machine with the compilers of constraints.txt",
)
def test_the_committed_module_is_what_the_sources_make(tmp_path):
    """Built anew from the kernels' sources, the module has the same bytes: `make wasm` was run."""
    built = tmp_path / "sanderling.wasm"
    command = [sys.executable, "-m", "sanderling.kernels.build_wasm", str(built)]
    subprocess.run(command, check=True, env=dict(os.environ))
    assert built.read_bytes() == MODULE.read_bytes(), "run `make wasm`"


def test_the_module_imports_nothing(kernels):
    """It needs no function and no memory of its host."""
    assert list(kernels.module.imports) == []


def test_javascript_has_the_layout_of_the_kernels():
    """Every number of layout.ts is that of layout.py."""
    numbers = dict(
        re.findall(r"^export const (\w+) = ([\d_.e-]+);", LAYOUT.read_text(), re.MULTILINE)
    )
    assert len(numbers) > 50
    for name, number in numbers.items():
        assert float(number.replace("_", "")) == getattr(layout, name), name


@pytest.mark.parametrize("bits", [layout.FOUR_BITS, layout.SEVEN_BITS])
@pytest.mark.parametrize(("n", "d", "k"), SIZES)
def test_searches_have_the_rows_and_scores_of_python(kernels, n, d, k, bits):
    """Ties, exclusions, masks and extreme queries: the same rows, and the same bits of scores."""
    rows, scale, bias = table(n, d)
    index = Int8Index(rows, scale, bias)
    module = WasmIndex(kernels, rows, scale, bias, bits, 2 * k)
    for search in searches(n, d, k):
        plain = search._replace(raised=search.raised[:0], by=search.by[:0])
        expected = found(index, plain)
        best = module.top(plain.query, min(plain.k, n), plain.excluded, plain.mask)
        assert best.rows.tolist() == expected.rows.tolist()
        assert best.scores.tobytes() == expected.scores.tobytes()
        assert best.eligible == expected.eligible


@pytest.mark.parametrize(("d", "c", "m", "t"), POLICIES)
def test_states_have_the_bits_of_python(kernels, d, c, m, t):
    """Inputs, states and user vectors after forty events."""
    tensors = policy(d, c, m, t)
    expected = UserModel(tensors, KINDS)
    model = WasmUserModel(kernels, tensors)
    state = expected.initial_state()
    for item, kind, context in events(d, t, 40):
        added = expected.input(item, KINDS[kind])
        after = expected.step(state, item, KINDS[kind])
        user = expected.user_vector(after, context)
        assert model.step(None, item, kind).tobytes() == added.tobytes()
        assert model.step(state, item, kind).tobytes() == after.tobytes()
        assert model.user_vector(after, context).tobytes() == user.tobytes()
        state = after


def test_uniforms_are_those_of_python(kernels):
    """Two doubles a block, for ids with all bits set and for random ones."""
    rng = np.random.default_rng(3)
    for decision in ["0" * 32, "f" * 32, *(rng.bytes(16).hex() for _ in range(20))]:
        expected = [number for pair in plain_uniforms(decision, 9) for number in pair]
        assert kernels.uniforms(decision, 9) == expected
